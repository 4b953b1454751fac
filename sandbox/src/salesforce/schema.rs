//! The objects of the org and their fields.
//!
//! Each object is a table of text in `objects/`: one field a line, the rest
//! of a field's describe follows from its type. Data with more objects or
//! fields extends what the tables say.

use std::collections::HashMap;

use super::field::read_field;
pub use super::field::{Field, Mark, OnDelete, Source, Type};

/// The tables of the objects every org has, in the order of the global
/// describe.
const TABLES: [&str; 37] = [
    include_str!("objects/Account.fields"),
    include_str!("objects/AccountContactRelation.fields"),
    include_str!("objects/Attachment.fields"),
    include_str!("objects/Campaign.fields"),
    include_str!("objects/CampaignMember.fields"),
    include_str!("objects/CampaignMemberStatus.fields"),
    include_str!("objects/Case.fields"),
    include_str!("objects/CaseComment.fields"),
    include_str!("objects/CaseHistory.fields"),
    include_str!("objects/CaseStatus.fields"),
    include_str!("objects/Contact.fields"),
    include_str!("objects/ContentDocument.fields"),
    include_str!("objects/ContentDocumentLink.fields"),
    include_str!("objects/ContentNote.fields"),
    include_str!("objects/ContentVersion.fields"),
    include_str!("objects/EmailMessage.fields"),
    include_str!("objects/Event.fields"),
    include_str!("objects/FeedItem.fields"),
    include_str!("objects/Group.fields"),
    include_str!("objects/GroupMember.fields"),
    include_str!("objects/Invoice_Line__c.fields"),
    include_str!("objects/Invoice__c.fields"),
    include_str!("objects/Lead.fields"),
    include_str!("objects/Note.fields"),
    include_str!("objects/Opportunity.fields"),
    include_str!("objects/OpportunityContactRole.fields"),
    include_str!("objects/OpportunityLineItem.fields"),
    include_str!("objects/OpportunityStage.fields"),
    include_str!("objects/Organization.fields"),
    include_str!("objects/Pricebook2.fields"),
    include_str!("objects/PricebookEntry.fields"),
    include_str!("objects/Product2.fields"),
    include_str!("objects/Profile.fields"),
    include_str!("objects/RecordType.fields"),
    include_str!("objects/Task.fields"),
    include_str!("objects/User.fields"),
    include_str!("objects/UserRole.fields"),
];

/// What an object may lack; its table says so with `no` before the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Records can be made.
    Create,
    /// Records can be changed.
    Update,
    /// Records can be deleted.
    Delete,
    /// Records can be taken out of the recycle bin.
    Undelete,
    /// `/updated` and `/deleted` know of it.
    Replicate,
    /// It has feeds.
    Feed,
    /// Searches find it.
    Search,
    /// It has layouts.
    Layout,
    /// The last ones used are remembered.
    Recent,
    /// Code can be run when it is written.
    Trigger,
    /// Bulk API reads it.
    Bulk,
    /// It can be read without saying which records.
    Scan,
    /// It has approvals.
    Approval,
    /// It has list views.
    Lists,
    /// It has quick actions.
    Actions,
    /// It has compact layouts.
    Compact,
    /// Its describe tells how its ids begin.
    Prefix,
}

impl Lack {
    fn read(word: &str) -> Option<Lack> {
        Some(match word {
            "nocreate" => Lack::Create,
            "noupdate" => Lack::Update,
            "nodelete" => Lack::Delete,
            "noundelete" => Lack::Undelete,
            "noreplicate" => Lack::Replicate,
            "nofeed" => Lack::Feed,
            "nosearch" => Lack::Search,
            "nolayout" => Lack::Layout,
            "nomru" => Lack::Recent,
            "notrigger" => Lack::Trigger,
            "nobulk" => Lack::Bulk,
            "filtered" => Lack::Scan,
            "noapproval" => Lack::Approval,
            "nolists" => Lack::Lists,
            "noactions" => Lack::Actions,
            "nocompact" => Lack::Compact,
            "noprefix" => Lack::Prefix,
            _ => return None,
        })
    }
}

/// One object.
#[derive(Clone, Debug)]
pub struct Object {
    /// API name.
    pub name: String,
    /// The first three characters of its ids.
    pub prefix: String,
    /// Label.
    pub label: String,
    /// Label of several.
    pub plural: String,
    /// Whether records of it can be merged.
    pub mergeable: bool,
    /// Whether records can be copied with what belongs to them.
    pub deep_cloneable: bool,
    /// What it is to another object: `History` of `Case`.
    pub belongs: Option<(String, String)>,
    /// What it cannot do that others can.
    lacks: Vec<Lack>,
    /// Names and labels of its query scopes.
    pub scopes: Vec<(String, String)>,
    /// Its fields, in the order of describe.
    pub fields: Vec<Field>,
    /// Whether the user may not see it.
    pub hidden: bool,
    /// The numbers of fields that the user may not see.
    hidden_fields: Vec<u16>,
    by_name: HashMap<String, u16>,
    by_relationship: HashMap<String, u16>,
}

impl Object {
    /// An object without fields.
    pub fn new(name: &str, prefix: &str, label: &str, plural: &str) -> Object {
        Object {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
            label: label.to_owned(),
            plural: plural.to_owned(),
            mergeable: false,
            deep_cloneable: false,
            belongs: None,
            lacks: Vec::new(),
            scopes: Vec::new(),
            fields: Vec::new(),
            hidden: false,
            hidden_fields: Vec::new(),
            by_name: HashMap::new(),
            by_relationship: HashMap::new(),
        }
    }

    /// Whether it is a custom object.
    pub fn is_custom(&self) -> bool {
        self.name.ends_with("__c")
    }

    /// Whether it can do this, as most objects can.
    pub fn can(&self, what: Lack) -> bool {
        !self.lacks.contains(&what)
    }

    /// Hides a field from the user, or shows it again.
    pub fn hide_field(&mut self, number: u16, hidden: bool) {
        self.hidden_fields.retain(|known| *known != number);
        if hidden {
            self.hidden_fields.push(number);
        }
    }

    /// Whether the user may see a field.
    pub fn shows(&self, number: u16) -> bool {
        !self.hidden_fields.contains(&number)
    }

    /// Whether there is a field that the user may not see.
    pub fn hides_fields(&self) -> bool {
        !self.hidden_fields.is_empty()
    }

    /// The fields that the user may see, in the order of describe.
    pub fn shown_fields(&self) -> impl Iterator<Item = &Field> {
        let numbered = self.fields.iter().enumerate();
        numbered
            .filter(|(number, _)| self.shows(*number as u16))
            .map(|(_, field)| field)
    }

    /// Adds a field behind the others and gives its number.
    pub fn add(&mut self, field: Field) -> u16 {
        let number = self.fields.len() as u16;
        self.by_name.insert(field.name.to_lowercase(), number);
        self.by_name.insert(field.name.clone(), number);
        if let Some(relationship) = &field.relationship {
            self.by_relationship
                .insert(relationship.to_lowercase(), number);
        }
        self.fields.push(field);
        number
    }

    /// The number of a field, whatever the case of its name.
    pub fn number(&self, name: &str) -> Option<u16> {
        match self.by_name.get(name) {
            Some(number) => Some(*number),
            None => self.by_name.get(&name.to_lowercase()).copied(),
        }
    }

    /// A field, whatever the case of its name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.number(name)
            .map(|number| &self.fields[usize::from(number)])
    }

    /// The number of the reference field with this relationship name.
    pub fn relationship(&self, name: &str) -> Option<u16> {
        self.by_relationship.get(&name.to_lowercase()).copied()
    }

    /// The field that names records.
    pub fn name_field(&self) -> Option<&Field> {
        self.fields.iter().find(|field| field.has(Mark::NameField))
    }

    /// Whether records can be in the recycle bin.
    pub fn has_bin(&self) -> bool {
        self.number("isdeleted").is_some()
    }

    fn read(table: &str) -> Object {
        let mut lines = table
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let head: Vec<&str> = lines.next().unwrap_or_default().split('|').collect();
        let mut object = Object::new(head[0], head[1], head[2], head[3]);
        for trait_ in head[4].split(',').filter(|item| !item.is_empty()) {
            match trait_ {
                "mergeable" => object.mergeable = true,
                "cloneable" => object.deep_cloneable = true,
                other if other.starts_with("of=") => {
                    object.belongs = other["of=".len()..]
                        .split_once('/')
                        .map(|(kind, parent)| (kind.to_owned(), parent.to_owned()));
                }
                other => match (Lack::read(other), other.split_once(':')) {
                    (Some(lack), _) => object.lacks.push(lack),
                    (None, Some((name, label))) => {
                        object.scopes.push((name.to_owned(), label.to_owned()));
                    }
                    (None, None) => panic!("unknown trait of {}: {other}", head[0]),
                },
            }
        }
        for line in lines {
            let field = read_field(line)
                .unwrap_or_else(|| panic!("bad line in the table of {}: {line}", head[0]));
            object.add(field);
        }
        object
    }
}

/// All objects of the org.
#[derive(Clone, Debug)]
pub struct Schema {
    /// The objects, in the order of the global describe.
    pub objects: Vec<Object>,
    by_name: HashMap<String, usize>,
}

impl Schema {
    /// The objects of the tables.
    pub fn standard() -> Schema {
        let mut schema = Schema {
            objects: Vec::new(),
            by_name: HashMap::new(),
        };
        for table in TABLES {
            schema.add(Object::read(table));
        }
        schema
    }

    /// Adds an object and gives its number.
    pub fn add(&mut self, object: Object) -> usize {
        self.by_name
            .insert(object.name.to_lowercase(), self.objects.len());
        self.objects.push(object);
        self.objects.len() - 1
    }

    /// Adds an object that only data knows: with an id, the stamps and an
    /// owner; its other fields follow.
    pub fn extend(&mut self, name: &str, prefix: Option<&str>) -> usize {
        let prefix = match prefix.filter(|prefix| self.by_prefix(prefix).is_none()) {
            Some(prefix) => prefix.to_owned(),
            None => self.unused_prefix(),
        };
        let label = name.trim_end_matches("__c").replace('_', " ");
        let mut object = Object::new(name, &prefix, &label, &format!("{label}s"));
        for line in [
            "Id|id|di|Record ID",
            "IsDeleted|boolean|d|Deleted",
            "CreatedDate|datetime|d|Created Date",
            "CreatedById|reference|d|Created By ID|User@CreatedBy",
            "LastModifiedDate|datetime|d|Last Modified Date",
            "LastModifiedById|reference|d|Last Modified By ID|User@LastModifiedBy",
            "SystemModstamp|datetime|d|System Modstamp",
        ] {
            object.fields.extend(read_field(line));
        }
        for field in std::mem::take(&mut object.fields) {
            object.add(field);
        }
        self.add(object)
    }

    fn unused_prefix(&self) -> String {
        (1..1000)
            .map(|number| format!("a{number:02}"))
            .find(|prefix| self.by_prefix(prefix).is_none())
            .unwrap_or_else(|| "azz".to_owned())
    }

    /// The number of an object, whatever the case of its name.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.to_lowercase()).copied()
    }

    /// The number of an object that the user may see.
    pub fn shown(&self, name: &str) -> Option<usize> {
        self.number(name)
            .filter(|number| !self.objects[*number].hidden)
    }

    /// The number of the object with this key prefix.
    pub fn by_prefix(&self, prefix: &str) -> Option<usize> {
        self.objects
            .iter()
            .position(|object| object.prefix == prefix)
    }

    /// Object and field numbers of all references to an object.
    pub fn references_to(&self, name: &str) -> Vec<(usize, u16)> {
        let mut found = Vec::new();
        for (number, object) in self.objects.iter().enumerate() {
            for (at, field) in object.fields.iter().enumerate() {
                if field.references.iter().any(|target| target == name) {
                    found.push((number, at as u16));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_read() {
        let schema = Schema::standard();
        let account = &schema.objects[schema.number("ACCOUNT").unwrap()];
        assert_eq!(account.prefix, "001");
        let industry = account.field("industry").unwrap();
        assert_eq!(industry.name, "Industry");
        assert_eq!(industry.kind, Type::Picklist);
        assert_eq!(industry.length, 255);
        assert!(industry.picklist.contains(&"Food & Beverage".to_owned()));
        assert_eq!(
            account.field("BillingCity").unwrap().compound.as_deref(),
            Some("BillingAddress")
        );
        assert_eq!(account.field("PhotoUrl").unwrap().source, Source::Photo);

        let case = &schema.objects[schema.number("Case").unwrap()];
        let owner = case.field("OwnerId").unwrap();
        assert!(owner.is_polymorphic());
        assert_eq!(owner.references, ["Group", "User"]);
        assert_eq!(
            case.field("Status").unwrap().default.as_deref(),
            Some("New")
        );
        assert_eq!(
            case.field("AccountId").unwrap().on_delete,
            OnDelete::Restrict
        );
        assert_eq!(case.name_field().unwrap().name, "CaseNumber");

        let required: Vec<&str> = schema.objects[schema.number("Opportunity").unwrap()]
            .fields
            .iter()
            .filter(|field| field.is_required())
            .map(|field| field.name.as_str())
            .collect();
        assert_eq!(required, ["Name", "StageName", "CloseDate"]);
    }

    #[test]
    fn what_the_tables_refer_to_is_there() {
        let schema = Schema::standard();
        for object in &schema.objects {
            assert!(object.field("Id").is_some(), "{}", object.name);
            // Notes are documents.
            assert_eq!(
                schema.by_prefix(&object.prefix) == schema.number(&object.name),
                object.name != "ContentNote",
                "{}",
                object.name
            );
            for field in &object.fields {
                for target in &field.references {
                    assert!(
                        schema.number(target).is_some()
                            || ["BusinessProcess", "Calendar"].contains(&target.as_str()),
                        "{}.{} -> {target}",
                        object.name,
                        field.name
                    );
                }
            }
        }
        // Some have no modstamp, some no dates at all.
        let lacks = |name: &str, field: &str| {
            schema.objects[schema.number(name).unwrap()]
                .field(field)
                .is_none()
        };
        assert!(lacks("CaseHistory", "SystemModstamp") && lacks("GroupMember", "CreatedDate"));
    }

    #[test]
    fn data_adds_objects() {
        let mut schema = Schema::standard();
        let number = schema.extend("Widget__c", Some("a00"));
        assert_eq!(schema.objects[number].prefix, "a01", "a00 is taken");
        assert!(schema.objects[number].field("systemmodstamp").is_some());
    }
}
