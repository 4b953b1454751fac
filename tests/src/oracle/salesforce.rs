//! Where each of Salesforce's objects must lie, written by hand.

use super::Expectation;

/// The Salesforce objects.
pub const SALESFORCE: &[Expectation] = &[
    Expectation {
        fields: &[
            ("name", "Name"),
            ("phone_number", "Phone"),
            ("website", "Website"),
            ("industry", "Industry"),
            ("billing_city", "BillingCity"),
            ("annual_revenue", "AnnualRevenue"),
            ("employees", "NumberOfEmployees"),
            ("description", "Description"),
        ],
        links: &[
            ("parent_id", "company", &["ParentId"]),
            ("record_type_id", "record", &["RecordTypeId"]),
            ("owner_id", "*", &["OwnerId"]),
        ],
        ..Expectation::of("Account", "company")
    },
    Expectation {
        fields: &[
            ("first_name", "FirstName"),
            ("last_name", "LastName"),
            ("email", "Email"),
            ("phone_number", "Phone"),
            ("title", "Title"),
            ("birth_date", "Birthdate"),
            ("bio", "Description"),
        ],
        links: &[
            ("company_id", "company", &["AccountId"]),
            ("manager_id", "contact", &["ReportsToId"]),
            ("owner_id", "*", &["OwnerId"]),
        ],
        required: &["company_id"],
        ..Expectation::of("Contact", "contact")
    },
    Expectation {
        fields: &[
            ("last_name", "LastName"),
            ("company_name", "Company"),
            ("email", "Email"),
            ("status", "Status"),
        ],
        links: &[
            ("converted_contact_id", "contact", &["ConvertedContactId"]),
            ("converted_company_id", "company", &["ConvertedAccountId"]),
            ("converted_deal_id", "deal", &["ConvertedOpportunityId"]),
            ("owner_id", "*", &["OwnerId"]),
        ],
        ..Expectation::of("Lead", "lead")
    },
    Expectation {
        fields: &[
            ("name", "Name"),
            ("stage", "StageName"),
            ("amount", "Amount"),
            ("close_date", "CloseDate"),
        ],
        links: &[
            ("company_id", "company", &["AccountId"]),
            ("campaign_id", "campaign", &["CampaignId"]),
            ("owner_id", "*", &["OwnerId"]),
        ],
        required: &["company_id"],
        ..Expectation::of("Opportunity", "deal")
    },
    Expectation {
        fields: &[
            ("subject", "Subject"),
            ("status", "Status"),
            ("priority", "Priority"),
            ("description", "Description"),
        ],
        links: &[
            ("contact_id", "contact", &["ContactId"]),
            ("company_id", "company", &["AccountId"]),
            ("parent_id", "ticket", &["ParentId"]),
            ("owner_id", "*", &["OwnerId"]),
        ],
        required: &["contact_id", "company_id"],
        ..Expectation::of("Case", "ticket")
    },
    Expectation {
        fields: &[
            ("name", "Name"),
            ("username", "Username"),
            ("email", "Email"),
            ("active", "IsActive"),
        ],
        links: &[("manager_id", "user", &["ManagerId"])],
        ..Expectation::of("User", "user")
    },
    Expectation {
        fields: &[("name", "Name"), ("code", "DeveloperName")],
        ..Expectation::of("Group", "group")
    },
    Expectation {
        fields: &[("name", "Name")],
        ..Expectation::of("RecordType", "record")
    },
    Expectation {
        fields: &[("role", "Roles"), ("primary", "IsDirect")],
        links: &[
            ("from_id", "*", &["ContactId"]),
            ("to_id", "*", &["AccountId"]),
        ],
        required: &["from_id", "to_id"],
        ..Expectation::of("AccountContactRelation", "association")
    },
    Expectation {
        fields: &[
            ("name", "Name"),
            ("status", "Status"),
            ("budget", "BudgetedCost"),
        ],
        links: &[("parent_id", "campaign", &["ParentId"])],
        ..Expectation::of("Campaign", "campaign")
    },
    Expectation {
        fields: &[("status", "Status")],
        links: &[
            ("from_id", "*", &["CampaignId"]),
            ("to_id", "*", &["ContactId", "LeadId"]),
        ],
        required: &["from_id", "to_id"],
        ..Expectation::of("CampaignMember", "association")
    },
    Expectation {
        fields: &[("name", "MasterLabel"), ("position", "SortOrder")],
        ..Expectation::of("OpportunityStage", "pipeline")
    },
    Expectation {
        fields: &[("name", "Name"), ("code", "ProductCode")],
        ..Expectation::of("Product2", "product")
    },
    Expectation {
        fields: &[("name", "Name")],
        ..Expectation::of("Pricebook2", "record")
    },
    Expectation {
        fields: &[("name", "Name")],
        ..Expectation::of("PricebookEntry", "record")
    },
    Expectation {
        fields: &[("role", "Role"), ("primary", "IsPrimary")],
        links: &[
            ("from_id", "*", &["OpportunityId"]),
            ("to_id", "*", &["ContactId"]),
        ],
        required: &["from_id", "to_id"],
        ..Expectation::of("OpportunityContactRole", "association")
    },
    Expectation {
        fields: &[
            ("name", "Name"),
            ("quantity", "Quantity"),
            ("unit_price", "UnitPrice"),
            ("service_date", "ServiceDate"),
        ],
        links: &[
            ("deal_id", "deal", &["OpportunityId"]),
            ("product_id", "product", &["Product2Id"]),
        ],
        required: &["deal_id"],
        ..Expectation::of("OpportunityLineItem", "line_item")
    },
    Expectation {
        fields: &[("body", "CommentBody"), ("public", "IsPublished")],
        links: &[
            ("parent_id", "*", &["ParentId"]),
            ("author_id", "user", &["CreatedById"]),
        ],
        required: &["parent_id"],
        ..Expectation::of("CaseComment", "comment")
    },
    Expectation {
        fields: &[
            ("subject", "Subject"),
            ("body", "TextBody"),
            ("from_address", "FromAddress"),
        ],
        links: &[
            ("about_id", "*", &["ParentId", "RelatedToId"]),
            ("task_id", "task", &["ActivityId"]),
        ],
        ..Expectation::of("EmailMessage", "activity")
    },
    Expectation {
        only: |task| task["TaskSubtype"] != "Call",
        fields: &[
            ("subject", "Subject"),
            ("status", "Status"),
            ("due_date", "ActivityDate"),
            ("description", "Description"),
        ],
        links: &[
            ("person_id", "*", &["WhoId"]),
            ("about_id", "*", &["WhatId"]),
            ("owner_id", "*", &["OwnerId"]),
        ],
        ..Expectation::of("Task", "task")
    },
    Expectation {
        only: |task| task["TaskSubtype"] == "Call",
        fields: &[("subject", "Subject"), ("body", "Description")],
        links: &[
            ("person_id", "*", &["WhoId"]),
            ("about_id", "*", &["WhatId"]),
            ("owner_id", "*", &["OwnerId"]),
        ],
        ..Expectation::of("Task", "activity")
    },
    Expectation {
        fields: &[
            ("subject", "Subject"),
            ("location", "Location"),
            ("all_day", "IsAllDayEvent"),
        ],
        links: &[
            ("person_id", "*", &["WhoId"]),
            ("about_id", "*", &["WhatId"]),
        ],
        ..Expectation::of("Event", "activity")
    },
    Expectation {
        fields: &[("subject", "Title"), ("body", "Body")],
        links: &[("about_id", "*", &["ParentId"])],
        ..Expectation::of("Note", "activity")
    },
    Expectation {
        fields: &[("subject", "Title"), ("body", "TextPreview")],
        ..Expectation::of("ContentNote", "activity")
    },
    Expectation {
        fields: &[("name", "Title"), ("size", "ContentSize")],
        ..Expectation::of("ContentDocument", "document")
    },
    Expectation {
        fields: &[("name", "Title"), ("checksum", "Checksum")],
        links: &[
            ("document_id", "document", &["ContentDocumentId"]),
            ("parent_id", "*", &["FirstPublishLocationId"]),
        ],
        ..Expectation::of("ContentVersion", "document")
    },
    Expectation {
        fields: &[("access", "ShareType")],
        links: &[
            ("from_id", "*", &["ContentDocumentId"]),
            ("to_id", "*", &["LinkedEntityId"]),
        ],
        required: &["from_id"],
        ..Expectation::of("ContentDocumentLink", "association")
    },
    Expectation {
        fields: &[("name", "Name"), ("size", "BodyLength")],
        links: &[("parent_id", "*", &["ParentId"])],
        ..Expectation::of("Attachment", "document")
    },
    Expectation {
        fields: &[("name", "Name")],
        ..Expectation::of("Invoice_Line__c", "record")
    },
    Expectation {
        fields: &[("name", "Name")],
        ..Expectation::of("Invoice__c", "record")
    },
];
