//! Fields: their types, and the line of a table that describes one.

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
    /// A text with a list of suggestions.
    Combobox,
    /// The bytes of a file; queries give an address to fetch them from.
    Base64,
    /// A time of day.
    Time,
    /// A text that is shown with most of it masked.
    Encrypted,
    /// A value whose type depends on the row.
    Any,
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
            Type::Combobox => "combobox",
            Type::Base64 => "base64",
            Type::Time => "time",
            Type::Encrypted => "encryptedstring",
            Type::Any => "anyType",
        }
    }

    fn read(name: &str) -> Option<Type> {
        const ALL: [Type; 22] = [
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
            Type::Combobox,
            Type::Base64,
            Type::Time,
            Type::Encrypted,
            Type::Any,
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
                | Type::Combobox
                | Type::Encrypted
                | Type::Time
                | Type::Any
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
    /// Stored bytes; what is printed is the address to fetch them from.
    Blob,
    /// A value of another record, over references; no write makes it change.
    Formula,
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
    /// The path of a formula: `Account__r.Industry`.
    pub formula: Option<String>,
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
    /// `e`: an external id: finds records in upserts.
    ExternalId,
    /// `q`: no two records have the same value.
    Unique,
    /// `h`: text with HTML in it.
    Html,
    /// `t`: true when nobody says anything.
    DefaultTrue,
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
            Mark::ExternalId => 'e',
            Mark::Unique => 'q',
            Mark::Html => 'h',
            Mark::DefaultTrue => 't',
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
        !self.is_long_text() && !matches!(self.kind, Type::Base64 | Type::Encrypted | Type::Any)
    }

    /// Whether queries may sort by it.
    pub fn is_sortable(&self) -> bool {
        self.is_filterable() && !matches!(self.kind, Type::Address | Type::Multipicklist)
    }

    /// Whether it must be given when a record is created.
    pub fn is_required(&self) -> bool {
        self.has(Mark::Createable)
            && !self.has(Mark::Nillable)
            && !self.has(Mark::Defaulted)
            && self.kind != Type::Boolean
    }

    /// Whether upserts find records by it.
    pub fn is_key(&self) -> bool {
        self.has(Mark::IdLookup) || self.has(Mark::ExternalId)
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
            formula: None,
            source: source_of(name, kind, false),
        }
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
        (_, Type::Base64) => Source::Blob,
        _ if image => Source::Photo,
        _ => Source::Stored,
    }
}

/// A field as a recorded describe tells of it.
pub fn described(describe: &serde_json::Value) -> Option<Field> {
    let text = |name: &str| describe[name].as_str();
    let says = |name: &str| describe[name].as_bool().unwrap_or(false);
    let size = |name: &str| describe[name].as_u64().unwrap_or(0) as usize;
    let kind = match text("type")? {
        "long" => Type::Int,
        "location" | "complexvalue" => Type::Address,
        other => Type::read(other).unwrap_or(Type::String),
    };
    let name = text("name")?;
    let mut field = Field::inferred(name, kind, size("length"));
    field.label = text("label").unwrap_or(name).to_owned();
    (field.precision, field.scale) = (size("precision"), size("scale"));
    if kind == Type::Int {
        field.precision = size("digits");
    }
    field.compound = text("compoundFieldName").map(str::to_owned);
    field.relationship = text("relationshipName").map(str::to_owned);
    let list = |name: &str| describe[name].as_array().cloned().unwrap_or_default();
    field.references = list("referenceTo")
        .iter()
        .filter_map(|target| target.as_str().map(str::to_owned))
        .collect();
    field.picklist = list("picklistValues")
        .iter()
        .filter_map(|value| value["value"].as_str().map(str::to_owned))
        .collect();
    field.marks = [
        ("createable", Mark::Createable),
        ("updateable", Mark::Updateable),
        ("nillable", Mark::Nillable),
        ("defaultedOnCreate", Mark::Defaulted),
        ("idLookup", Mark::IdLookup),
        ("nameField", Mark::NameField),
        ("autoNumber", Mark::AutoNumber),
        ("permissionable", Mark::Permissionable),
        ("restrictedPicklist", Mark::Restricted),
        ("externalId", Mark::ExternalId),
        ("unique", Mark::Unique),
    ]
    .into_iter()
    .filter(|(name, _)| says(name))
    .map(|(_, mark)| mark.letter())
    .collect();
    Some(field)
}

/// Reads one line of a table.
pub fn read_field(line: &str) -> Option<Field> {
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
        formula: None,
    };
    if let Some(path) = extra.strip_prefix('=') {
        field.formula = Some(path.to_owned());
        field.source = Source::Formula;
        return Some(field);
    }
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
