//! Which declared types of a source can become which kind of canonical field.
//!
//! Sources name their types as they like, so only the words that mean the same
//! everywhere are judged; with any other one the record's own value decides.
//! A migration's own mapping is judged more strictly than a connector's: its
//! author does not know what the API puts into a text ([`needs_a_form`]).

use drover_schemas::{Entity, Field, Format, Holds, Kind};

use super::Form;

/// What the values of a field look like in a record, as far as the source's word for
/// its type tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `true` and `false`.
    Boolean,
    /// Numbers.
    Number,
    /// Texts that are days.
    Date,
    /// Texts that are moments with their zone.
    Datetime,
    /// Texts that are times of a day.
    Time,
    /// Ids: texts, or the numbers that some sources count by.
    Id,
    /// Any texts.
    Text,
    /// Groups of values, or lists.
    Nested,
    /// Whatever the source means by its word.
    Unknown,
}

/// The shape of the values of a field that the source declares as `declared`.
pub fn shape(declared: &str) -> Shape {
    match declared.to_ascii_lowercase().as_str() {
        "boolean" | "bool" | "checkbox" => Shape::Boolean,
        "int" | "integer" | "long" | "double" | "float" | "decimal" | "currency" | "percent" => {
            Shape::Number
        }
        "date" => Shape::Date,
        "datetime" | "date-time" | "timestamp" => Shape::Datetime,
        "time" => Shape::Time,
        "id" | "reference" => Shape::Id,
        "string" | "text" | "textarea" | "html" | "phone" | "email" | "url" | "picklist"
        | "multipicklist" | "combobox" | "encryptedstring" | "enumeration" => Shape::Text,
        "address" | "location" | "object" | "array" => Shape::Nested,
        _ => Shape::Unknown,
    }
}

/// Whether a field that the source declares as `declared` can ever give a value
/// of that kind.
pub fn can_become(declared: &str, kind: Kind) -> bool {
    use Kind::{Boolean, Date, Datetime, Decimal, Long, Reference, String};
    match declared.to_ascii_lowercase().as_str() {
        "boolean" | "bool" | "checkbox" => kind == Boolean,
        "date" => matches!(kind, Date | String),
        // A moment is no day until somebody says where.
        "datetime" | "date-time" | "timestamp" => matches!(kind, Datetime | String),
        "time" => kind == String,
        "int" | "integer" | "long" => matches!(kind, Long | Decimal | String | Reference),
        "double" | "float" | "decimal" | "currency" | "percent" => {
            matches!(kind, Long | Decimal | String)
        }
        "id" | "reference" => matches!(kind, String | Reference | Long),
        "address" | "location" | "object" | "array" => false,
        "phone" => matches!(kind, String | Long | Decimal | Reference),
        "email" | "url" => matches!(kind, String | Reference),
        _ => true,
    }
}

/// The same for a field of an entity, which may ask more of a text than to be one.
pub fn can_fill(declared: &str, entity: &Entity, field: &Field) -> bool {
    if !can_become(declared, field.kind) {
        return false;
    }
    if field.format.is_none() && told_by(entity, field).is_none() {
        return true;
    }
    // Whatever else a source prints as a text is none of these. An address of a
    // person may well stand in a text; in a field for addresses nothing else does.
    match shape(declared) {
        Shape::Text => {
            field.format == Some(Format::Email) || !declared.eq_ignore_ascii_case("email")
        }
        other => other == Shape::Unknown,
    }
}

/// What a field of an entity holds, for a message.
pub fn holds(entity: &Entity, field: &Field) -> String {
    match (field.format, told_by(entity, field)) {
        (Some(Format::Email), _) => "an e-mail address".to_owned(),
        (Some(Format::Currency), _) => "a currency's code (three capital letters)".to_owned(),
        (None, Some(reference)) => {
            format!("the name of the entity that {reference} points to, which Drover fills in")
        }
        (None, None) => match field.holds {
            Some(Holds::Phone) => "a telephone number".to_owned(),
            Some(Holds::Country) => "a country".to_owned(),
            None => kind_name(field.kind).to_owned(),
        },
    }
}

/// The reference beside which a field says what that points to.
fn told_by<'e>(entity: &'e Entity, field: &Field) -> Option<&'e str> {
    let mut fields = entity.fields.iter();
    let reference = fields.find(|one| one.type_field.as_deref() == Some(&field.name))?;
    Some(&reference.name)
}

/// Whether a text of a source field that is declared so can be brought into a form.
pub fn can_take_form(declared: &str, form: Form) -> bool {
    let is_email = declared.eq_ignore_ascii_case("email");
    match shape(declared) {
        Shape::Text => !is_email,
        // Ids that are texts, and numbers, are dialled by nobody; but a number is
        // what some sources make of a telephone number.
        Shape::Number => form == Form::Phone,
        other => other == Shape::Unknown,
    }
}

/// Whether a text in that form is what a field of an entity holds.
pub fn form_fits(field: &Field, form: Form) -> bool {
    match (field.holds, form) {
        (Some(Holds::Phone), form) => form == Form::Phone,
        (Some(Holds::Country), form) => form == Form::Country,
        (None, _) => field.format.is_none(),
    }
}

/// What a form makes of a text, for a message.
pub fn form_name(form: Form) -> &'static str {
    match form {
        Form::Phone => "a telephone number",
        Form::Country => "a country",
    }
}

/// Whether a field of that kind needs a form that a plain text does not promise:
/// a text may hold anything, so a date or an id made of it fails in every record
/// that holds something else. A number in a text converts, or says what it is.
pub fn needs_a_form(declared: &str, kind: Kind) -> bool {
    let text = shape(declared) == Shape::Text;
    text && matches!(kind, Kind::Date | Kind::Datetime | Kind::Reference)
}

/// Whether a listed value of an enumeration can be a value of that kind; of kinds that
/// a text promises nothing of ([`needs_a_form`]) nothing is said.
pub fn value_fits(value: &str, kind: Kind) -> bool {
    let number = || {
        value
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
    };
    match kind {
        Kind::Boolean => matches!(value, "true" | "false"),
        Kind::Long => number().is_some_and(|number| number.fract() == 0.0),
        Kind::Decimal => number().is_some(),
        Kind::String | Kind::Date | Kind::Datetime | Kind::Reference => true,
    }
}

/// The word by which a source would declare what becomes that kind: for a source
/// that was not asked, and whose connector's rule is all that is known.
pub fn declared_as(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "text",
        Kind::Boolean => "boolean",
        Kind::Long => "integer",
        Kind::Decimal => "decimal",
        Kind::Date => "date",
        Kind::Datetime => "datetime",
        Kind::Reference => "reference",
    }
}

/// What a field of that kind holds, for a message.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "a text",
        Kind::Boolean => "true or false",
        Kind::Long => "a whole number",
        Kind::Decimal => "a decimal number",
        Kind::Date => "a date",
        Kind::Datetime => "a date with time and zone",
        Kind::Reference => "a reference",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_never_work_is_refused() {
        assert!(!can_become("boolean", Kind::Date));
        assert!(!can_become("boolean", Kind::String));
        assert!(!can_become("datetime", Kind::Date));
        assert!(!can_become("date", Kind::Datetime));
        assert!(!can_become("address", Kind::String));
        assert!(can_become("picklist", Kind::Boolean));
        assert!(can_become("currency", Kind::Decimal));
        assert!(can_become("double", Kind::Long));
        assert!(can_become("string", Kind::Reference));
        assert!(can_become("integer", Kind::Reference));
        assert!(!can_become("phone", Kind::Date));
        assert!(!can_become("email", Kind::Decimal));
        assert!(can_become("phone", Kind::Long));
    }

    #[test]
    fn what_is_no_text_is_no_address_and_no_code() {
        let fills = |declared: &str, name: &str| {
            let contact = drover_schemas::entity("contact").expect("an entity");
            let (_, field) = contact.field(name).expect("a field");
            (can_fill(declared, contact, field), holds(contact, field))
        };
        for declared in [
            "date",
            "datetime",
            "time",
            "int",
            "id",
            "reference",
            "boolean",
        ] {
            for name in ["email", "currency", "ownerType"] {
                assert!(!fills(declared, name).0, "{declared} to {name}");
            }
        }
        for declared in ["string", "textarea", "picklist", "phone", "url", "vendor's"] {
            for name in ["email", "currency", "ownerType", "department"] {
                assert!(fills(declared, name).0, "{declared} to {name}");
            }
        }
        assert!(fills("email", "email").0 && fills("email", "department").0);
        assert!(!fills("email", "currency").0 && !fills("email", "ownerType").0);
        // The bare id, or the date as a text, may be wanted.
        assert!(fills("reference", "department").0 && fills("date", "department").0);
        assert_eq!(fills("id", "email").1, "an e-mail address");
        assert_eq!(
            fills("id", "ownerType").1,
            "the name of the entity that ownerId points to, which Drover fills in"
        );
        assert_eq!(fills("id", "mailingCountry").1, "a country");
    }

    #[test]
    fn a_form_is_for_what_it_makes() {
        let fits = |name: &str, form| {
            let contact = drover_schemas::entity("contact").expect("an entity");
            form_fits(contact.field(name).expect("a field").1, form)
        };
        assert!(fits("phoneNumber", Form::Phone) && fits("mailingCountry", Form::Country));
        assert!(!fits("phoneNumber", Form::Country) && !fits("mailingCountry", Form::Phone));
        assert!(fits("department", Form::Phone) && !fits("email", Form::Phone));
        assert!(can_take_form("picklist", Form::Country) && can_take_form("int", Form::Phone));
        assert!(!can_take_form("date", Form::Phone) && !can_take_form("email", Form::Phone));
        assert!(!can_take_form("int", Form::Country));
    }

    #[test]
    fn a_text_promises_no_date_and_no_id() {
        assert!(needs_a_form("String", Kind::Date));
        assert!(needs_a_form("phone", Kind::Reference));
        assert!(!needs_a_form("string", Kind::Decimal));
        assert!(!needs_a_form("date", Kind::Date));
        assert!(!needs_a_form("some vendor's type", Kind::Date));
    }

    #[test]
    fn a_listed_value_is_a_number_or_is_none() {
        assert!(value_fits("12", Kind::Long) && value_fits("-1.5", Kind::Decimal));
        assert!(!value_fits("1.5", Kind::Long) && !value_fits("Hot", Kind::Decimal));
        assert!(!value_fits("NaN", Kind::Decimal) && !value_fits("", Kind::Long));
        assert!(value_fits("true", Kind::Boolean) && !value_fits("Yes", Kind::Boolean));
        assert!(value_fits("Hot", Kind::String) && value_fits("Hot", Kind::Date));
    }

    #[test]
    fn a_declared_kind_becomes_itself() {
        for kind in [
            Kind::String,
            Kind::Boolean,
            Kind::Long,
            Kind::Decimal,
            Kind::Date,
            Kind::Datetime,
            Kind::Reference,
        ] {
            assert!(can_become(declared_as(kind), kind), "{kind:?}");
            assert!(!needs_a_form(declared_as(kind), kind), "{kind:?}");
        }
    }
}
