//! One JSON value, looked at where it lies, without a tree.

use std::borrow::Cow;

use drover_pipeline::Code;

use crate::convert::Fault;

/// What kind of value a well-formed JSON text is.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number, as its digits stand there.
    Number(&'a str),
    /// A text.
    Text(Cow<'a, str>),
    /// `{…}`
    Object,
    /// `[…]`
    List,
}

impl<'a> Json<'a> {
    /// Looks at a JSON text that is known to be well-formed and trimmed. Fails
    /// only on a text that is not Unicode: half a surrogate pair.
    pub fn of(raw: &'a str) -> Result<Self, Fault> {
        Ok(match raw.as_bytes().first() {
            Some(b'"') => Json::Text(text(raw)?),
            Some(b't') => Json::Bool(true),
            Some(b'f') => Json::Bool(false),
            Some(b'{') => Json::Object,
            Some(b'[') => Json::List,
            Some(b'n') | None => Json::Null,
            Some(_) => Json::Number(raw),
        })
    }

    /// The kind of value, for a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Json::Null => "nothing",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::Text(_) => "a text",
            Json::Object => "an object",
            Json::List => "a list",
        }
    }
}

/// Whether a field holds nothing: null, or an empty text, which is how sources
/// print null by some of their ways.
pub fn is_empty(raw: &str) -> bool {
    matches!(raw, "null" | "\"\"")
}

fn text(raw: &str) -> Result<Cow<'_, str>, Fault> {
    let inner = raw.get(1..raw.len() - 1).unwrap_or_default();
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    // The text was scanned before, so what is left to fail is a \uD800 alone.
    serde_json::from_str(raw).map(Cow::Owned).map_err(|_| {
        Fault::new(
            Code::InvalidUtf8,
            "a text with half of a surrogate pair, which is no character",
        )
    })
}

/// The value in one form for all ways to write it: no white space between the
/// tokens, and no escapes but the necessary ones, so that equal content gives
/// equal bytes. Digits and the order of names stay as they are.
pub fn compact(raw: &str) -> Cow<'_, str> {
    let nested = matches!(raw.as_bytes().first(), Some(b'{' | b'['));
    let plain = if nested {
        !raw.bytes().any(|b| b.is_ascii_whitespace() || b == b'\\')
    } else {
        !raw.contains('\\')
    };
    if plain {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(|c: char| c == '"' || c.is_ascii_whitespace()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('"') {
            let (string, behind) = rest.split_at(end_of_string(rest));
            match text(string) {
                Ok(Cow::Owned(text)) => match serde_json::to_string(&text) {
                    Ok(written) => out.push_str(&written),
                    Err(_) => out.push_str(string),
                },
                _ => out.push_str(string),
            }
            rest = behind;
        } else {
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// A text of several values as a list of them; what is no text stays.
pub fn list(raw: &str, separator: char) -> Cow<'_, str> {
    match Json::of(raw) {
        Ok(Json::Text(text)) => {
            let values: Vec<&str> = text.split(separator).filter(|v| !v.is_empty()).collect();
            // Texts can always be written.
            serde_json::to_string(&values).map_or_else(|_| compact(raw), Cow::Owned)
        }
        _ => compact(raw),
    }
}

/// Where the string ends with which the text starts.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_form() {
        for (raw, one) in [
            ("12.50", "12.50"),
            (r#""a b""#, r#""a b""#),
            (r#""caf\u00e9 \/ \ud83d\ude00""#, r#""café / 😀""#),
            (r#""a\nb\"\\""#, r#""a\nb\"\\""#),
            (
                "{ \"a b\" : [ 1 ,\n2 ], \"c\\u0041\":\t\"x  y\\\\\" }",
                r#"{"a b":[1,2],"cA":"x  y\\"}"#,
            ),
            // Not Unicode: it can't be written otherwise, so it stays.
            (r#""\ud800""#, r#""\ud800""#),
        ] {
            assert_eq!(compact(raw), one);
            assert_eq!(compact(one), one);
        }
    }

    #[test]
    fn several_values_become_a_list() {
        assert_eq!(list(r#""A;B \u00e9;C""#, ';'), r#"["A","B é","C"]"#);
        assert_eq!(list(r#""A""#, ';'), r#"["A"]"#);
        assert_eq!(list("7", ';'), "7");
    }

    #[test]
    fn empty_is_null_or_an_empty_text() {
        assert!(is_empty("null") && is_empty("\"\""));
        assert!(!is_empty("0") && !is_empty("\" \"") && !is_empty("false") && !is_empty("[]"));
    }
}
