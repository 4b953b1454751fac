//! Which declared types of a source can become which kind of canonical field.
//!
//! Sources name their types as they like, so only the words that mean the same
//! everywhere are judged; with any other one the record's own value decides.

use drover_schemas::Kind;

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
        _ => true,
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
    }
}
