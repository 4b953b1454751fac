//! Cuts a query into tokens.

use chrono::NaiveDate;

use super::malformed;
use crate::salesforce::errors::ApiError;
use crate::salesforce::moment::{self, Millis};

/// A token and where it begins, in characters from 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub at: usize,
}

/// What a token can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A name or keyword.
    Word(String),
    /// A text, as meant and as written.
    Text(String, String),
    /// A number.
    Number(f64, String),
    /// A day.
    Date(NaiveDate),
    /// A moment.
    Moment(Millis),
    /// Punctuation and operators.
    Symbol(&'static str),
    /// Behind the last token.
    End,
}

impl Kind {
    /// The token as an error names it.
    pub fn shown(&self) -> String {
        match self {
            Kind::Word(text) | Kind::Number(_, text) => text.clone(),
            Kind::Text(_, written) => format!("'{written}'"),
            Kind::Date(date) => date.to_string(),
            Kind::Moment(at) => moment::print(*at),
            Kind::Symbol(text) => (*text).to_owned(),
            Kind::End => "<EOF>".to_owned(),
        }
    }
}

const SYMBOLS: [&str; 15] = [
    "!=", "<>", "<=", ">=", "(", ")", ",", ".", ":", "=", "<", ">", "*", ";", "-",
];

/// The tokens of a query; the last one is [`Kind::End`].
pub fn tokens(query: &str) -> Result<Vec<Token>, ApiError> {
    let chars: Vec<char> = query.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let start = at;
        let c = chars[at];
        let kind = if c.is_whitespace() {
            at += 1;
            continue;
        } else if c == '\'' {
            text(&chars, &mut at)?
        } else if c.is_ascii_digit()
            || (matches!(c, '-' | '+') && chars.get(at + 1).is_some_and(char::is_ascii_digit))
        {
            number(&chars, &mut at)?
        } else if c.is_alphabetic() || c == '_' {
            while chars
                .get(at)
                .is_some_and(|c| c.is_alphanumeric() || *c == '_')
            {
                at += 1;
            }
            Kind::Word(chars[start..at].iter().collect())
        } else {
            let symbol = SYMBOLS
                .into_iter()
                .find(|symbol| {
                    symbol
                        .chars()
                        .enumerate()
                        .all(|(i, s)| chars.get(at + i) == Some(&s))
                })
                .ok_or_else(|| {
                    malformed(format!(
                        "line 1:{at} no viable alternative at character '{c}'"
                    ))
                })?;
            at += symbol.len();
            Kind::Symbol(symbol)
        };
        tokens.push(Token { kind, at: start });
    }
    tokens.push(Token {
        kind: Kind::End,
        at: chars.len(),
    });
    Ok(tokens)
}

fn text(chars: &[char], at: &mut usize) -> Result<Kind, ApiError> {
    let mut meant = String::new();
    let mut written = String::new();
    *at += 1;
    loop {
        let Some(&c) = chars.get(*at) else {
            return Err(malformed(format!(
                "line 1:{at} mismatched character '<EOF>' expecting '''"
            )));
        };
        *at += 1;
        match c {
            '\'' => return Ok(Kind::Text(meant, written)),
            '\\' => {
                let escaped = chars.get(*at).copied().unwrap_or(' ');
                *at += 1;
                written.push('\\');
                written.push(escaped);
                meant.push(match escaped {
                    'n' | 'N' => '\n',
                    'r' | 'R' => '\r',
                    't' | 'T' => '\t',
                    'b' | 'B' => '\u{8}',
                    'f' | 'F' => '\u{c}',
                    '"' | '\'' | '\\' | '_' | '%' => escaped,
                    _ => {
                        return Err(malformed(
                            "Invalid string literal. Illegal character sequence '\\".to_owned()
                                + &escaped.to_string()
                                + "' in string literal.",
                        ));
                    }
                });
            }
            c => {
                meant.push(c);
                written.push(c);
            }
        }
    }
}

fn number(chars: &[char], at: &mut usize) -> Result<Kind, ApiError> {
    let start = *at;
    let digits = |from: usize, count: usize| {
        (from..from + count).all(|i| chars.get(i).is_some_and(char::is_ascii_digit))
    };
    let dated = digits(start, 4)
        && chars.get(start + 4) == Some(&'-')
        && digits(start + 5, 2)
        && chars.get(start + 7) == Some(&'-')
        && digits(start + 8, 2);
    if dated {
        *at += 10;
        if chars.get(*at).is_some_and(|c| matches!(c, 'T' | 't')) {
            while chars
                .get(*at)
                .is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '+' | '-'))
            {
                *at += 1;
            }
        }
        let text: String = chars[start..*at].iter().collect();
        let kind = if text.len() == 10 {
            moment::parse_date(&text).map(Kind::Date)
        } else {
            moment::parse(&text.to_uppercase()).map(Kind::Moment)
        };
        return kind.ok_or_else(|| malformed(format!("unexpected token: '{text}'")));
    }
    *at += 1;
    while chars
        .get(*at)
        .is_some_and(|c| c.is_ascii_alphanumeric() || *c == '.')
    {
        *at += 1;
    }
    let text: String = chars[start..*at].iter().collect();
    text.parse()
        .map(|number| Kind::Number(number, text.clone()))
        .map_err(|_| malformed(format!("unexpected token: '{text}'")))
}
