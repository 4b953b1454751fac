//! What an administrator sets up: the organization, roles, record types,
//! stages, states of cases, price books, members of queues.

use rand::Rng;

use super::maker::Maker;
use crate::salesforce::derive::STAGES;
use crate::salesforce::id::Id;
use crate::salesforce::people::Fields;
use crate::salesforce::record::double;

/// Object, API name and label of record types.
pub const RECORD_TYPES: [(&str, &str, &str); 6] = [
    ("Account", "Business_Account", "Business Account"),
    ("Account", "PersonAccount", "Person Account"),
    ("Case", "Support", "Support"),
    ("Case", "Billing", "Rechnung / Billing"),
    ("Opportunity", "New_Business", "New Business"),
    ("Opportunity", "Renewal", "Renewal"),
];
/// States of a case; the last one is closed.
const CASE_STATUS: [&str; 4] = ["New", "Working", "Escalated", "Closed"];
/// Roles; each one's parent is the one before.
const ROLES: [(&str, &str); 3] = [
    ("CEO", "CEO"),
    ("VP Sales", "VPSales"),
    ("Inside Sales Team", "InsideSalesTeam"),
];

/// How many records of each set-up object there are.
pub const COUNTS: [(&str, u64); 7] = [
    ("Organization", 1),
    ("UserRole", ROLES.len() as u64),
    ("RecordType", RECORD_TYPES.len() as u64),
    ("OpportunityStage", STAGES.len() as u64),
    ("CaseStatus", CASE_STATUS.len() as u64),
    ("Pricebook2", 2),
    ("GroupMember", 8),
];

/// The id of the n-th record type, counted from 0.
pub fn record_type(at: usize) -> Id {
    Id::numbered("012", at as u64 + 1)
}

impl Maker {
    /// The values of such a record, true if the object is one of these.
    pub fn set_up(&mut self, fields: &mut Fields<'_>, name: &str, number: u64) -> bool {
        let at = number as usize - 1;
        match name {
            "Organization" => {
                fields.text("Name", "Drover Sandbox");
                fields.text("OrganizationType", "Enterprise Edition");
                fields.text("InstanceName", "CS1");
                fields.json("IsSandbox", "true");
                fields.json("IsReadOnly", "false");
                fields.text("DefaultLocaleSidKey", "en_US");
                fields.text("TimeZoneSidKey", "America/Los_Angeles");
                fields.text("LanguageLocaleKey", "en_US");
                fields.json("FiscalYearStartMonth", "1");
                fields.text("Country", "US");
            }
            "UserRole" => {
                let (name, developer) = ROLES[at];
                fields.text("Name", name);
                fields.text("DeveloperName", developer);
                fields.text("OpportunityAccessForAccountOwner", "Edit");
                if at > 0 {
                    fields.id("ParentRoleId", Some(Id::numbered("00E", number - 1)));
                }
            }
            "RecordType" => {
                let (object, developer, label) = RECORD_TYPES[at];
                fields.text("SobjectType", object);
                fields.text("DeveloperName", developer);
                fields.text("Name", label);
                fields.json("IsActive", "true");
            }
            "OpportunityStage" => {
                let (name, probability, closed, won, category, label) = STAGES[at];
                fields.text("MasterLabel", name);
                fields.text("ApiName", name);
                fields.json("IsActive", "true");
                fields.json("SortOrder", number.to_string());
                fields.json("IsClosed", closed.to_string());
                fields.json("IsWon", won.to_string());
                fields.text("ForecastCategory", category);
                fields.text("ForecastCategoryName", label);
                fields.json("DefaultProbability", double(probability));
            }
            "CaseStatus" => {
                fields.text("MasterLabel", CASE_STATUS[at]);
                fields.text("ApiName", CASE_STATUS[at]);
                fields.json("SortOrder", number.to_string());
                fields.json("IsDefault", (at == 0).to_string());
                fields.json("IsClosed", (at + 1 == CASE_STATUS.len()).to_string());
            }
            "Pricebook2" => {
                let standard = at == 0;
                fields.text(
                    "Name",
                    if standard {
                        "Standard Price Book"
                    } else {
                        "Partner – EU"
                    },
                );
                fields.json("IsActive", "true");
                fields.json("IsArchived", "false");
                fields.json("IsStandard", standard.to_string());
            }
            "GroupMember" => {
                let queue = (number - 1) % self.queues.max(1) + 1;
                fields.id("GroupId", Some(Id::numbered("00G", queue)));
                let user = self.rng.random_range(1..=self.users.max(1));
                fields.id("UserOrGroupId", Some(Id::numbered("005", user)));
            }
            _ => return false,
        }
        true
    }
}
