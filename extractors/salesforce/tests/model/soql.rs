//! The part of SOQL that the extractor writes, read by a small grammar of its
//! own, so that a query's text is tested and not only compared.

/// A query.
#[derive(Debug)]
pub struct Query {
    /// `SELECT COUNT()`: no fields.
    pub count: bool,
    pub fields: Vec<String>,
    pub object: String,
    pub filter: Option<Expr>,
    pub order: Vec<String>,
    pub limit: Option<usize>,
}

/// A condition.
#[derive(Debug)]
pub enum Expr {
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Compare(String, String, String),
    In(String, Vec<String>),
}

impl Expr {
    /// Whether a row fits; `value` gives its fields as comparable text.
    pub fn holds(&self, value: &dyn Fn(&str) -> String) -> bool {
        match self {
            Expr::And(a, b) => a.holds(value) && b.holds(value),
            Expr::Or(a, b) => a.holds(value) || b.holds(value),
            Expr::In(field, list) => list.contains(&value(field)),
            Expr::Compare(field, operator, literal) => {
                let found = value(field);
                // Moments are compared as moments, however they are printed.
                let literal = &match chrono::DateTime::parse_from_rfc3339(literal) {
                    Ok(moment) => format!("{:020}", moment.timestamp_millis()),
                    Err(_) => literal.clone(),
                };
                match operator.as_str() {
                    "=" => found == *literal,
                    ">" => found > *literal,
                    ">=" => found >= *literal,
                    "<" => found < *literal,
                    other => panic!("operator {other}"),
                }
            }
        }
    }
}

/// Reads a query; panics on what the extractor should not write.
pub fn parse(text: &str) -> Query {
    let mut parser = Parser {
        tokens: tokens(text),
        at: 0,
    };
    parser.word("SELECT");
    let mut fields = vec![parser.next()];
    let count = fields == ["COUNT"] && parser.take("(") && parser.take(")");
    while parser.take(",") {
        fields.push(parser.next());
    }
    parser.word("FROM");
    let object = parser.next();
    let filter = parser.take("WHERE").then(|| parser.expr());
    let mut order = Vec::new();
    if parser.take("ORDER") {
        parser.word("BY");
        order.push(parser.next());
        while parser.take(",") {
            order.push(parser.next());
        }
    }
    let limit = parser
        .take("LIMIT")
        .then(|| parser.next().parse().expect("a number"));
    assert_eq!(parser.at, parser.tokens.len(), "more text in {text}");
    Query {
        count,
        fields,
        object,
        filter,
        order,
        limit,
    }
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
}

impl Parser {
    fn next(&mut self) -> String {
        self.at += 1;
        self.tokens[self.at - 1].clone()
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|next| next == token);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, token: &str) {
        assert!(self.take(token), "{token} is missing in {:?}", self.tokens);
    }

    fn expr(&mut self) -> Expr {
        let mut left = self.all();
        while self.take("OR") {
            left = Expr::Or(Box::new(left), Box::new(self.all()));
        }
        left
    }

    fn all(&mut self) -> Expr {
        let mut left = self.one();
        while self.take("AND") {
            left = Expr::And(Box::new(left), Box::new(self.one()));
        }
        left
    }

    fn one(&mut self) -> Expr {
        if self.take("(") {
            let inner = self.expr();
            self.word(")");
            return inner;
        }
        let field = self.next();
        if self.take("IN") {
            self.word("(");
            let mut list = vec![self.next()];
            while self.take(",") {
                list.push(self.next());
            }
            self.word(")");
            return Expr::In(field, list);
        }
        Expr::Compare(field, self.next(), self.next())
    }
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(first) = chars.next() {
        match first {
            ' ' => {}
            '\'' => tokens.push(chars.by_ref().take_while(|c| *c != '\'').collect()),
            '(' | ')' | ',' | '=' => tokens.push(first.to_string()),
            '<' | '>' => {
                let equal = chars.next_if_eq(&'=').is_some();
                tokens.push(if equal {
                    format!("{first}=")
                } else {
                    first.to_string()
                });
            }
            _ => {
                let mut word = first.to_string();
                while let Some(c) =
                    chars.next_if(|c| c.is_ascii_alphanumeric() || "_-:.".contains(*c))
                {
                    word.push(c);
                }
                tokens.push(word);
            }
        }
    }
    tokens
}
