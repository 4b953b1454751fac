//! The objects of the org and their fields.
//!
//! Each object is a table of text in `objects/`: one field a line, the rest
//! of a field's describe follows from its type. Data with more objects or
//! fields extends what the tables say.

use std::collections::HashMap;

/// The tables of the objects every org has, in the order of the global
/// describe.
const TABLES: [&str; 11] = [
    include_str!("objects/Account.fields"),
    include_str!("objects/Case.fields"),
    include_str!("objects/CaseComment.fields"),
    include_str!("objects/Contact.fields"),
    include_str!("objects/FeedItem.fields"),
    include_str!("objects/Group.fields"),
    include_str!("objects/Invoice__c.fields"),
    include_str!("objects/Lead.fields"),
    include_str!("objects/Opportunity.fields"),
    include_str!("objects/Profile.fields"),
    include_str!("objects/User.fields"),
];

/// The type of a field, as describe names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// The record's own id.
    Id,
    /// A line of text.
    String,
    /// One of a list of values.
    Picklist,
    /// Several of a list of values, joined by `;`.
    Multipicklist,
    /// A text of several lines; above 255 characters it can't be filtered.
    Textarea,
    /// A phone number.
    Phone,
    /// A web address.
    Url,
    /// An e-mail address.
    Email,
    /// The id of another record.
    Reference,
    /// True or false, never null.
    Boolean,
    /// A whole number.
    Int,
    /// A number.
    Double,
    /// An amount of money.
    Currency,
    /// A number of hundredths.
    Percent,
    /// A day without a zone.
    Date,
    /// A moment.
    Datetime,
    /// An address put together from its parts.
    Address,
}

impl Type {
    /// The name in describe.
    pub fn name(self) -> &'static str {
        match self {
            Type::Id => "id",
            Type::String => "string",
            Type::Picklist => "picklist",
            Type::Multipicklist => "multipicklist",
            Type::Textarea => "textarea",
            Type::Phone => "phone",
            Type::Url => "url",
            Type::Email => "email",
            Type::Reference => "reference",
            Type::Boolean => "boolean",
            Type::Int => "int",
            Type::Double => "double",
            Type::Currency => "currency",
            Type::Percent => "percent",
            Type::Date => "date",
            Type::Datetime => "datetime",
            Type::Address => "address",
        }
    }

    fn read(name: &str) -> Option<Type> {
        const ALL: [Type; 17] = [
            Type::Id,
            Type::String,
            Type::Picklist,
            Type::Multipicklist,
            Type::Textarea,
            Type::Phone,
            Type::Url,
            Type::Email,
            Type::Reference,
            Type::Boolean,
            Type::Int,
            Type::Double,
            Type::Currency,
            Type::Percent,
            Type::Date,
            Type::Datetime,
            Type::Address,
        ];
        ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether values are JSON strings of free text.
    pub fn is_text(self) -> bool {
        matches!(
            self,
            Type::String
                | Type::Picklist
                | Type::Multipicklist
                | Type::Textarea
                | Type::Phone
                | Type::Url
                | Type::Email
        )
    }

    /// Whether values are numbers with a fraction.
    pub fn is_double(self) -> bool {
        matches!(self, Type::Double | Type::Currency | Type::Percent)
    }
}

/// Where the value of a field comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The record's id.
    Id,
    /// Whether the record is in the recycle bin.
    Deleted,
    /// When it was created.
    Created,
    /// When it was last modified.
    Modified,
    /// When it last changed at all.
    Modstamp,
    /// Its stored values.
    Stored,
    /// The parts of an address whose names begin as the address does.
    Address,
    /// The address of its picture, made from its id.
    Photo,
}

/// What the deletion of a parent does to its child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    /// The child keeps pointing at nothing.
    Nothing,
    /// The child is deleted too.
    Cascade,
    /// The parent can't be deleted.
    Restrict,
}

/// One field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// API name.
    pub name: String,
    /// Label.
    pub label: String,
    /// Type.
    pub kind: Type,
    /// Longest text, in characters.
    pub length: usize,
    /// Digits of a number.
    pub precision: usize,
    /// Digits after the point.
    pub scale: usize,
    /// The compound field it is a part of.
    pub compound: Option<String>,
    /// One-letter marks of the table; see [`Field::has`].
    marks: String,
    /// Objects it may point to.
    pub references: Vec<String>,
    /// Name under which queries reach what it points to.
    pub relationship: Option<String>,
    /// Name under which queries of the parent reach the children.
    pub children: Option<String>,
    /// What the deletion of the parent does.
    pub on_delete: OnDelete,
    /// Values of a picklist.
    pub picklist: Vec<String>,
    /// The picklist's default.
    pub default: Option<String>,
    /// Where its value comes from.
    pub source: Source,
}

/// A mark of a field in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `c`: can be set when a record is created.
    Createable,
    /// `u`: can be set later.
    Updateable,
    /// `n`: may be null.
    Nillable,
    /// `d`: gets a value by itself.
    Defaulted,
    /// `i`: finds records in upserts.
    IdLookup,
    /// `N`: the record's name.
    NameField,
    /// `a`: numbered by the org.
    AutoNumber,
    /// `p`: field permissions apply.
    Permissionable,
    /// `x`: only the listed values.
    Restricted,
    /// `o`: part of a person's name.
    PersonName,
    /// `s`: an account's name, which may be a person's.
    SwitchableName,
    /// `g`: address of a picture.
    Image,
}

impl Mark {
    fn letter(self) -> char {
        match self {
            Mark::Createable => 'c',
            Mark::Updateable => 'u',
            Mark::Nillable => 'n',
            Mark::Defaulted => 'd',
            Mark::IdLookup => 'i',
            Mark::NameField => 'N',
            Mark::AutoNumber => 'a',
            Mark::Permissionable => 'p',
            Mark::Restricted => 'x',
            Mark::PersonName => 'o',
            Mark::SwitchableName => 's',
            Mark::Image => 'g',
        }
    }
}

impl Field {
    /// Whether the table marks the field so.
    pub fn has(&self, mark: Mark) -> bool {
        self.marks.contains(mark.letter())
    }

    /// Whether it is a custom field.
    pub fn is_custom(&self) -> bool {
        self.name.ends_with("__c")
    }

    /// Whether it is a text too long to filter, sort or group by.
    pub fn is_long_text(&self) -> bool {
        self.kind == Type::Textarea && self.length > 255
    }

    /// Whether queries may filter by it.
    pub fn is_filterable(&self) -> bool {
        !self.is_long_text()
    }

    /// Whether queries may sort by it.
    pub fn is_sortable(&self) -> bool {
        !self.is_long_text() && !matches!(self.kind, Type::Address | Type::Multipicklist)
    }

    /// Whether it must be given when a record is created.
    pub fn is_required(&self) -> bool {
        self.has(Mark::Createable)
            && !self.has(Mark::Nillable)
            && !self.has(Mark::Defaulted)
            && self.kind != Type::Boolean
    }

    /// Whether it points to more than one object.
    pub fn is_polymorphic(&self) -> bool {
        self.references.len() > 1
    }

    /// A field as data shows it that no table knows.
    pub fn inferred(name: &str, kind: Type, length: usize) -> Field {
        let (precision, scale) = if kind.is_double() { (18, 4) } else { (0, 0) };
        let marks = if kind == Type::Boolean {
            "cudp"
        } else {
            "cunp"
        };
        let relationship = (kind == Type::Reference).then(|| match name.strip_suffix("__c") {
            Some(stem) => format!("{stem}__r"),
            None => name.strip_suffix("Id").unwrap_or(name).to_owned(),
        });
        Field {
            name: name.to_owned(),
            label: name.trim_end_matches("__c").replace('_', " "),
            kind,
            length: if kind == Type::Reference { 18 } else { length },
            precision,
            scale,
            compound: None,
            marks: marks.to_owned(),
            references: Vec::new(),
            relationship,
            children: None,
            on_delete: OnDelete::Nothing,
            picklist: Vec::new(),
            default: None,
            source: source_of(name, kind, false),
        }
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
    /// Whether records can be deleted.
    pub deletable: bool,
    /// Names and labels of its query scopes.
    pub scopes: Vec<(String, String)>,
    /// Its fields, in the order of describe.
    pub fields: Vec<Field>,
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
            deletable: true,
            scopes: Vec::new(),
            fields: Vec::new(),
            by_name: HashMap::new(),
            by_relationship: HashMap::new(),
        }
    }

    /// Whether it is a custom object.
    pub fn is_custom(&self) -> bool {
        self.name.ends_with("__c")
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
                "nodelete" => object.deletable = false,
                _ => {
                    if let Some((name, label)) = trait_.split_once(':') {
                        object.scopes.push((name.to_owned(), label.to_owned()));
                    }
                }
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

fn source_of(name: &str, kind: Type, image: bool) -> Source {
    match (name, kind) {
        ("Id", _) => Source::Id,
        ("IsDeleted", _) => Source::Deleted,
        ("CreatedDate", _) => Source::Created,
        ("LastModifiedDate", _) => Source::Modified,
        ("SystemModstamp", _) => Source::Modstamp,
        (_, Type::Address) => Source::Address,
        _ if image => Source::Photo,
        _ => Source::Stored,
    }
}

fn read_field(line: &str) -> Option<Field> {
    let mut parts = line.split('|');
    let name = parts.next()?;
    let declared = parts.next()?;
    let marks = parts.next()?.to_owned();
    let label = parts.next()?;
    let extra = parts.next().unwrap_or_default();

    let (declared, compound) = match declared.split_once('^') {
        Some((declared, compound)) => (declared, Some(compound.to_owned())),
        None => (declared, None),
    };
    let (kind, size) = declared.split_once(':').unwrap_or((declared, ""));
    let kind = Type::read(kind)?;
    let (mut length, mut precision, mut scale) = (0, 0, 0);
    match (kind, size.split_once('.')) {
        (Type::Id | Type::Reference, _) => length = 18,
        (_, Some((digits, after))) => {
            (precision, scale) = (digits.parse().ok()?, after.parse().ok()?)
        }
        (_, None) if size.is_empty() => {}
        (Type::Int, None) => precision = size.parse().ok()?,
        (_, None) => length = size.parse().ok()?,
    }

    let mut field = Field {
        name: name.to_owned(),
        label: label.to_owned(),
        kind,
        length,
        precision,
        scale,
        compound,
        source: source_of(name, kind, marks.contains(Mark::Image.letter())),
        marks,
        references: Vec::new(),
        relationship: None,
        children: None,
        on_delete: OnDelete::Nothing,
        picklist: Vec::new(),
        default: None,
    };
    if kind == Type::Reference {
        let (targets, names) = extra.split_once('@')?;
        field.references = targets.split(',').map(str::to_owned).collect();
        let (relationship, children) = names.split_once('/').unwrap_or((names, ""));
        field.relationship = (!relationship.is_empty()).then(|| relationship.to_owned());
        let (children, on_delete) = children.split_once(' ').unwrap_or((children, ""));
        field.children = (!children.is_empty()).then(|| children.to_owned());
        field.on_delete = match on_delete {
            "cascade" => OnDelete::Cascade,
            "restrict" => OnDelete::Restrict,
            _ => OnDelete::Nothing,
        };
    } else if !extra.is_empty() {
        let (values, default) = match extra.split_once(" !") {
            Some((values, default)) => (values, Some(default.to_owned())),
            None => (extra, None),
        };
        field.picklist = values.split(';').map(str::to_owned).collect();
        field.default = default;
    }
    Some(field)
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
    fn every_object_has_the_stamps_and_its_own_prefix() {
        let schema = Schema::standard();
        for object in &schema.objects {
            for name in ["Id", "CreatedDate", "LastModifiedDate", "SystemModstamp"] {
                assert!(object.field(name).is_some(), "{}.{name}", object.name);
            }
            assert_eq!(
                schema.by_prefix(&object.prefix),
                schema.number(&object.name)
            );
            for field in &object.fields {
                for target in &field.references {
                    assert!(
                        schema.number(target).is_some() || target == "UserRole",
                        "{}.{} -> {target}",
                        object.name,
                        field.name
                    );
                }
            }
        }
    }

    #[test]
    fn data_adds_objects() {
        let mut schema = Schema::standard();
        let number = schema.extend("Widget__c", Some("a00"));
        assert_eq!(schema.objects[number].prefix, "a01", "a00 is taken");
        assert!(schema.objects[number].field("systemmodstamp").is_some());
    }
}
