//! SOQL, the query language: what a query says, before any object is known.

#[cfg(test)]
mod any_text;
mod lexer;
mod parser;
mod span;

pub use parser::parse;

use super::errors::ApiError;
use super::moment::Millis;

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// What it selects.
    pub select: Vec<Selected>,
    /// The object.
    pub from: Path,
    /// The object's other name in this query.
    pub alias: Option<String>,
    /// Which rows.
    pub filter: Option<Filter>,
    /// What aggregates are grouped by.
    pub group_by: Vec<Path>,
    /// Which groups.
    pub having: Option<Having>,
    /// In which order.
    pub order: Vec<OrderKey>,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// Without the first rows.
    pub offset: u64,
    /// Whether it stands inside another one.
    pub nested: bool,
}

impl Query {
    /// Whether it says by `=` or IN, for every row, which value one of these
    /// fields has.
    pub fn is_narrow(&self, fields: &[&str]) -> bool {
        fn narrow(filter: &Filter, fields: &[&str]) -> bool {
            let named = |path: &Path| {
                path.parts
                    .last()
                    .is_some_and(|name| fields.iter().any(|field| field.eq_ignore_ascii_case(name)))
            };
            match filter {
                Filter::And(all) => all.iter().any(|filter| narrow(filter, fields)),
                Filter::Compare(path, Operator::Equal, Literal::Text(..)) => named(path),
                Filter::In(path, false, _) | Filter::InQuery(path, false, _) => named(path),
                _ => false,
            }
        }
        self.filter
            .as_ref()
            .is_some_and(|filter| narrow(filter, fields))
    }
}

/// A field, reached over relationships: `Account.Owner.Name`.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Names of relationships and, last, of the field.
    pub parts: Vec<String>,
    /// Where the path stands in the text, in characters from 0.
    pub at: usize,
}

/// One item of the SELECT list.
#[derive(Clone, Debug, PartialEq)]
pub enum Selected {
    /// A field; with a name of its own in grouped queries.
    Field(Path, Option<String>),
    /// `COUNT()`.
    CountAll,
    /// `COUNT(Id) name`.
    Aggregate {
        /// Which function.
        function: Function,
        /// Of which field.
        field: Path,
        /// The name of the result.
        alias: Option<String>,
    },
    /// `FIELDS(ALL)` and its kin.
    Fields(FieldGroup),
    /// A query of children, by the name of their relationship.
    Children(Box<Query>),
    /// Fields of a parent that depend on what it is.
    TypeOf {
        /// The relationship.
        parent: Path,
        /// Object and its fields.
        when: Vec<(String, Vec<Path>)>,
        /// The fields of any other object.
        otherwise: Vec<Path>,
    },
}

/// Conditions on groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Having {
    /// Whether one of them is enough.
    pub any: bool,
    /// Function, field, operator and number.
    pub tests: Vec<(Function, Path, Operator, f64)>,
}

/// Functions over rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Rows where the field is not null.
    Count,
    /// Different values.
    CountDistinct,
    /// Sum.
    Sum,
    /// Mean.
    Avg,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
}

/// The groups that `FIELDS()` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldGroup {
    /// Every field.
    All,
    /// Standard fields.
    Standard,
    /// Custom fields.
    Custom,
}

impl FieldGroup {
    /// Whether a field belongs to the group.
    pub fn has(self, custom: bool) -> bool {
        match self {
            FieldGroup::All => true,
            FieldGroup::Standard => !custom,
            FieldGroup::Custom => custom,
        }
    }
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of them.
    And(Vec<Filter>),
    /// Any of them.
    Or(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// Field, operator, value.
    Compare(Path, Operator, Literal),
    /// Field among values; the flag says `NOT IN`.
    In(Path, bool, Vec<Literal>),
    /// Field among what another query finds; the flag says `NOT IN`.
    InQuery(Path, bool, Box<Query>),
    /// Several chosen values among; the flag says `EXCLUDES`.
    Includes(Path, bool, Vec<Literal>),
}

/// Operators between a field and a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`, `<>`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
    /// `LIKE`
    Like,
}

/// A value in a query.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`, `false`
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A text: as meant, and as written between the quotes (LIKE needs it).
    Text(String, String),
    /// A day.
    Date(chrono::NaiveDate),
    /// A moment.
    Moment(Millis),
    /// A span of days, from inclusive, to exclusive: `LAST_N_DAYS:3`.
    Span(Millis, Millis),
}

/// One key of ORDER BY.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderKey {
    /// Of groups: by this function of the field, not by the field itself.
    pub function: Option<Function>,
    /// By which field.
    pub field: Path,
    /// Largest first.
    pub descending: bool,
    /// Nulls at the end; they come first by default, in both directions.
    pub nulls_last: bool,
}

/// A message with the place it is about, as the API prints it: the part of
/// the query around it, a caret below, row and column.
pub fn located(query: &str, at: usize, message: &str) -> String {
    const BEFORE: usize = 32;
    const AFTER: usize = 42;
    let chars: Vec<char> = query.chars().collect();
    let at = at.min(chars.len());
    let word = |index: usize| {
        chars
            .get(index)
            .is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
    };
    let mut start = at.saturating_sub(BEFORE);
    if start > 0 {
        while start < at && word(start - 1) {
            start += 1;
        }
        while start < at && !word(start) {
            start += 1;
        }
    }
    let mut end = chars.len().min(at + AFTER);
    if end < chars.len() && word(end) {
        while end > at + 1 && word(end - 1) {
            end -= 1;
        }
        if end <= at + 1 {
            end = chars.len().min(at + AFTER);
        }
    }
    let row = 1 + chars[..at].iter().filter(|c| **c == '\n').count();
    let column = 1 + at
        - chars[..at]
            .iter()
            .rposition(|c| *c == '\n')
            .map_or(0, |newline| newline + 1);
    let part: String = chars[start..end].iter().collect();
    format!(
        "\n{}\n{}^\nERROR at Row:{row}:Column:{column}\n{message}",
        part.trim_end(),
        " ".repeat(at - start)
    )
}

/// An error in the form of a query.
pub fn malformed(message: impl Into<String>) -> ApiError {
    ApiError::bad("MALFORMED_QUERY", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places and texts of errors that the real API gave.
    #[test]
    fn places_are_printed_as_recorded() {
        let query = "select count() from XYZZY";
        assert_eq!(
            located(query, 20, "m"),
            "\nselect count() from XYZZY\n                    ^\nERROR at Row:1:Column:21\nm"
        );
        let query = "SELECT Id,Name,BillingCity,IsDeleted FROM Accout";
        assert_eq!(
            located(query, 42, "m"),
            "\nName,BillingCity,IsDeleted FROM Accout\n                                ^\nERROR at Row:1:Column:43\nm"
        );
        let query = "SELECT Id, Foo FROM Account";
        assert_eq!(
            located(query, 11, "m"),
            "\nSELECT Id, Foo FROM Account\n           ^\nERROR at Row:1:Column:12\nm"
        );
    }
}
