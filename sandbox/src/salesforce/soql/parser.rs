//! Reads a query: recursive descent over the tokens.

use super::lexer::{Kind, Token, tokens};
use super::span;
use super::{
    FieldGroup, Filter, Function, Having, Literal, Operator, OrderKey, Path, Query, Selected,
    malformed,
};
use crate::salesforce::errors::ApiError;
use crate::salesforce::moment;

/// The longest query the API takes.
const LONGEST: usize = 100_000;

/// How deep conditions may nest; the real parser has a limit too.
const DEEPEST: usize = 100;

/// Words that end a list, so that they are no alias.
const CLAUSES: [&str; 16] = [
    "from", "where", "order", "limit", "offset", "group", "having", "using", "with", "for", "asc",
    "desc", "nulls", "and", "or", "all",
];

/// Reads a query.
pub fn parse(text: &str) -> Result<Query, ApiError> {
    if text.chars().count() > LONGEST {
        return Err(ApiError::bad(
            "QUERY_TOO_COMPLICATED",
            "SOQL statements cannot be longer than 100000 characters.",
        ));
    }
    if text.trim().is_empty() {
        return Err(malformed("SOQL statements can not be empty or null"));
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
    };
    let query = parser.query()?;
    match parser.kind() {
        Kind::End => Ok(query),
        _ => Err(parser.unexpected()),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn kind(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    fn ahead(&self, by: usize) -> &Kind {
        &self.tokens[(self.at + by).min(self.tokens.len() - 1)].kind
    }

    fn place(&self) -> usize {
        self.tokens[self.at].at
    }

    fn next(&mut self) -> Kind {
        let kind = self.kind().clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        kind
    }

    fn unexpected(&self) -> ApiError {
        malformed(format!("unexpected token: '{}'", self.kind().shown()))
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.kind(), Kind::Word(text) if text.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.next();
        }
        found
    }

    fn expect_word(&mut self, word: &str) -> Result<(), ApiError> {
        if self.take_word(word) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.kind(), Kind::Symbol(text) if *text == symbol);
        if found {
            self.next();
        }
        found
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<(), ApiError> {
        if self.take_symbol(symbol) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn name(&mut self) -> Result<String, ApiError> {
        match self.kind() {
            Kind::Word(text) => {
                let text = text.clone();
                self.next();
                Ok(text)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// A name that is no keyword, if there is one.
    fn alias(&mut self) -> Option<String> {
        match self.kind() {
            Kind::Word(text) if !CLAUSES.contains(&text.to_lowercase().as_str()) => {
                let text = text.clone();
                self.next();
                Some(text)
            }
            _ => None,
        }
    }

    fn path(&mut self) -> Result<Path, ApiError> {
        let at = self.place();
        let mut parts = vec![self.name()?];
        while self.take_symbol(".") {
            parts.push(self.name()?);
        }
        Ok(Path { parts, at })
    }

    fn query(&mut self) -> Result<Query, ApiError> {
        self.expect_word("select")?;
        let mut select = vec![self.selected()?];
        while self.take_symbol(",") {
            select.push(self.selected()?);
        }
        self.expect_word("from")?;
        let from = self.path()?;
        let _ = self.take_word("as");
        let alias = self.alias();
        if self.take_word("using") {
            self.expect_word("scope")?;
            self.name()?;
        }
        let filter = if self.take_word("where") {
            Some(self.filter()?)
        } else {
            None
        };
        if self.take_word("with") {
            self.name()?;
        }
        let mut group_by = Vec::new();
        if self.take_word("group") {
            self.expect_word("by")?;
            group_by.push(self.path()?);
            while self.take_symbol(",") {
                group_by.push(self.path()?);
            }
        }
        let having = if self.take_word("having") {
            Some(self.having()?)
        } else {
            None
        };
        let mut order = Vec::new();
        if self.take_word("order") {
            self.expect_word("by")?;
            order.push(self.order_key()?);
            while self.take_symbol(",") {
                order.push(self.order_key()?);
            }
        }
        let limit = if self.take_word("limit") {
            Some(self.count()?)
        } else {
            None
        };
        let offset = if self.take_word("offset") {
            self.count()?
        } else {
            0
        };
        if self.take_word("for") {
            // VIEW, REFERENCE, UPDATE: no effect on what is read.
            self.name()?;
        }
        Ok(Query {
            select,
            from,
            alias,
            filter,
            group_by,
            having,
            order,
            limit,
            offset,
            nested: false,
        })
    }

    /// Conditions on groups, joined by AND or by OR.
    fn having(&mut self) -> Result<Having, ApiError> {
        let mut tests = vec![self.group_test()?];
        let any = self.is_word("or");
        while self.take_word(if any { "or" } else { "and" }) {
            tests.push(self.group_test()?);
        }
        Ok(Having { any, tests })
    }

    fn group_test(&mut self) -> Result<(Function, Path, Operator, f64), ApiError> {
        let at = self.at;
        let Selected::Aggregate {
            function, field, ..
        } = self.selected()?
        else {
            self.at = at;
            return Err(self.unexpected());
        };
        let operator = self.operator()?;
        match self.literal()? {
            Literal::Number(number) => Ok((function, field, operator, number)),
            _ => Err(malformed("only numbers can be compared in a HAVING clause")),
        }
    }

    /// `TYPEOF Who WHEN Contact THEN Email ELSE Id END`; the first word is gone.
    fn type_of(&mut self) -> Result<Selected, ApiError> {
        let parent = self.path()?;
        let mut when = Vec::new();
        while self.take_word("when") {
            let object = self.name()?;
            self.expect_word("then")?;
            when.push((object, self.paths()?));
        }
        let otherwise = if self.take_word("else") {
            self.paths()?
        } else {
            Vec::new()
        };
        self.expect_word("end")?;
        Ok(Selected::TypeOf {
            parent,
            when,
            otherwise,
        })
    }

    fn paths(&mut self) -> Result<Vec<Path>, ApiError> {
        let mut paths = vec![self.path()?];
        while self.take_symbol(",") {
            paths.push(self.path()?);
        }
        Ok(paths)
    }

    fn selected(&mut self) -> Result<Selected, ApiError> {
        if self.is_word("typeof") && matches!(self.ahead(1), Kind::Word(_)) {
            self.next();
            return self.type_of();
        }
        if self.take_symbol("(") {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err(self.unexpected());
            }
            let mut query = self.query()?;
            query.nested = true;
            self.depth -= 1;
            self.expect_symbol(")")?;
            return Ok(Selected::Children(Box::new(query)));
        }
        let call = match (self.kind(), self.ahead(1)) {
            (Kind::Word(word), Kind::Symbol("(")) => Some(word.to_lowercase()),
            _ => None,
        };
        let Some(call) = call else {
            if self.is_word("from") {
                return Err(self.unexpected());
            }
            return Ok(Selected::Field(self.path()?, self.alias()));
        };
        let start = self.at;
        self.next();
        self.next();
        if call == "fields" {
            let group = match self.name()?.to_lowercase().as_str() {
                "all" => FieldGroup::All,
                "standard" => FieldGroup::Standard,
                "custom" => FieldGroup::Custom,
                _ => {
                    return Err(malformed(
                        "The SOQL FIELDS function must use ALL, STANDARD or CUSTOM",
                    ));
                }
            };
            self.expect_symbol(")")?;
            return Ok(Selected::Fields(group));
        }
        let function = match call.as_str() {
            "count" => Function::Count,
            "count_distinct" => Function::CountDistinct,
            "sum" => Function::Sum,
            "avg" => Function::Avg,
            "min" => Function::Min,
            "max" => Function::Max,
            // Labels and formats print the value here.
            "tolabel" | "format" => {
                let path = self.path()?;
                self.expect_symbol(")")?;
                return Ok(Selected::Field(path, self.alias()));
            }
            _ => {
                self.at = start;
                return Err(self.unexpected());
            }
        };
        if function == Function::Count && self.take_symbol(")") {
            return Ok(Selected::CountAll);
        }
        let field = self.path()?;
        self.expect_symbol(")")?;
        Ok(Selected::Aggregate {
            function,
            field,
            alias: self.alias(),
        })
    }

    fn order_key(&mut self) -> Result<OrderKey, ApiError> {
        let (at, called) = (self.at, matches!(self.ahead(1), Kind::Symbol("(")));
        let (function, field) = if called {
            match self.selected()? {
                Selected::Aggregate {
                    function,
                    field,
                    alias: None,
                } => (Some(function), field),
                Selected::Field(field, None) => (None, field),
                _ => {
                    self.at = at;
                    return Err(self.unexpected());
                }
            }
        } else {
            (None, self.path()?)
        };
        let descending = if self.take_word("desc") {
            true
        } else {
            self.take_word("asc");
            false
        };
        let nulls_last = if self.take_word("nulls") {
            if self.take_word("last") {
                true
            } else {
                self.expect_word("first")?;
                false
            }
        } else {
            false
        };
        Ok(OrderKey {
            function,
            field,
            descending,
            nulls_last,
        })
    }

    fn count(&mut self) -> Result<u64, ApiError> {
        match self.kind() {
            Kind::Number(number, _) if *number >= 0.0 && number.fract() == 0.0 => {
                let number = *number as u64;
                self.next();
                Ok(number)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Conditions joined by AND or by OR; the two mix only in parentheses.
    fn filter(&mut self) -> Result<Filter, ApiError> {
        let first = self.condition()?;
        for (word, make) in [
            ("and", Filter::And as fn(Vec<Filter>) -> Filter),
            ("or", Filter::Or),
        ] {
            if self.is_word(word) {
                let mut all = vec![first];
                while self.take_word(word) {
                    all.push(self.condition()?);
                }
                if self.is_word("and") || self.is_word("or") {
                    return Err(self.unexpected());
                }
                return Ok(make(all));
            }
        }
        Ok(first)
    }

    fn condition(&mut self) -> Result<Filter, ApiError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(ApiError::bad(
                "QUERY_TOO_COMPLICATED",
                "Query is either selecting too many fields or the filter conditions are too complicated.",
            ));
        }
        let condition = self.undeepened();
        self.depth -= 1;
        condition
    }

    fn undeepened(&mut self) -> Result<Filter, ApiError> {
        if self.take_word("not") {
            return Ok(Filter::Not(Box::new(self.condition()?)));
        }
        if self.take_symbol("(") {
            let filter = self.filter()?;
            self.expect_symbol(")")?;
            return Ok(filter);
        }
        let field = self.path()?;
        if self.take_word("in") {
            return self.among(field, false);
        }
        if self.is_word("not")
            && matches!(self.ahead(1), Kind::Word(word) if word.eq_ignore_ascii_case("in"))
        {
            self.next();
            self.next();
            return self.among(field, true);
        }
        if self.take_word("includes") {
            return Ok(Filter::Includes(field, false, self.list()?));
        }
        if self.take_word("excludes") {
            return Ok(Filter::Includes(field, true, self.list()?));
        }
        let operator = self.operator()?;
        Ok(Filter::Compare(field, operator, self.literal()?))
    }

    /// What stands behind IN: values, or a query that finds them.
    fn among(&mut self, field: Path, negated: bool) -> Result<Filter, ApiError> {
        let query =
            matches!(self.ahead(1), Kind::Word(word) if word.eq_ignore_ascii_case("select"));
        if !query {
            return Ok(Filter::In(field, negated, self.list()?));
        }
        self.expect_symbol("(")?;
        let mut query = self.query()?;
        query.nested = true;
        self.expect_symbol(")")?;
        Ok(Filter::InQuery(field, negated, Box::new(query)))
    }

    fn operator(&mut self) -> Result<Operator, ApiError> {
        let operator = match self.kind() {
            Kind::Symbol("=") => Operator::Equal,
            Kind::Symbol("!=" | "<>") => Operator::Unequal,
            Kind::Symbol("<") => Operator::Less,
            Kind::Symbol("<=") => Operator::AtMost,
            Kind::Symbol(">") => Operator::Greater,
            Kind::Symbol(">=") => Operator::AtLeast,
            Kind::Word(word) if word.eq_ignore_ascii_case("like") => Operator::Like,
            _ => return Err(self.unexpected()),
        };
        self.next();
        Ok(operator)
    }

    fn list(&mut self) -> Result<Vec<Literal>, ApiError> {
        self.expect_symbol("(")?;
        let mut values = vec![self.literal()?];
        while self.take_symbol(",") {
            values.push(self.literal()?);
        }
        self.expect_symbol(")")?;
        Ok(values)
    }

    fn literal(&mut self) -> Result<Literal, ApiError> {
        let literal = match self.kind().clone() {
            Kind::Text(meant, written) => Literal::Text(meant, written),
            Kind::Number(number, _) => Literal::Number(number),
            Kind::Date(date) => Literal::Date(date),
            Kind::Moment(at) => Literal::Moment(at),
            Kind::Word(word) => match word.to_lowercase().as_str() {
                "null" => Literal::Null,
                "true" => Literal::Boolean(true),
                "false" => Literal::Boolean(false),
                name => return self.span(name),
            },
            _ => return Err(self.unexpected()),
        };
        self.next();
        Ok(literal)
    }

    /// A named span of days; its first word is `name` and still stands.
    fn span(&mut self, name: &str) -> Result<Literal, ApiError> {
        let count = if matches!(self.ahead(1), Kind::Symbol(":")) {
            match self.ahead(2) {
                Kind::Number(count, _) if *count >= 1.0 => Some(*count as u32),
                _ => return Err(self.unexpected()),
            }
        } else {
            None
        };
        let today = chrono::Utc::now().date_naive();
        let (from, to) = span::named(name, count, today).ok_or_else(|| self.unexpected())?;
        self.next();
        if count.is_some() {
            self.next();
            self.next();
        }
        Ok(Literal::Span(moment::start_of(from), moment::start_of(to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(filter: &Filter) -> String {
        let joined = |all: &[Filter], by: &str| {
            format!("({})", all.iter().map(show).collect::<Vec<_>>().join(by))
        };
        let list = |values: &[Literal]| {
            values
                .iter()
                .map(show_literal)
                .collect::<Vec<_>>()
                .join(",")
        };
        match filter {
            Filter::And(all) => joined(all, " & "),
            Filter::Or(all) => joined(all, " | "),
            Filter::Not(one) => format!("!{}", show(one)),
            Filter::Compare(path, operator, value) => {
                format!(
                    "{} {operator:?} {}",
                    path.parts.join("."),
                    show_literal(value)
                )
            }
            Filter::In(path, negated, values) => {
                format!(
                    "{} {}[{}]",
                    path.parts.join("."),
                    if *negated { "not " } else { "" },
                    list(values)
                )
            }
            Filter::InQuery(path, ..) => format!("{} in query", path.parts.join(".")),
            Filter::Includes(path, negated, values) => {
                format!(
                    "{} {}has[{}]",
                    path.parts.join("."),
                    if *negated { "not " } else { "" },
                    list(values)
                )
            }
        }
    }

    fn show_literal(literal: &Literal) -> String {
        match literal {
            Literal::Null => "null".to_owned(),
            Literal::Boolean(value) => value.to_string(),
            Literal::Number(number) => number.to_string(),
            Literal::Text(meant, _) => format!("{meant:?}"),
            Literal::Date(date) => date.to_string(),
            Literal::Moment(at) => moment::print(*at),
            Literal::Span(from, to) => {
                format!("{}..{}", moment::print_date(*from), moment::print_date(*to))
            }
        }
    }

    #[test]
    fn conditions() {
        let table = [
            ("A = 1", "A Equal 1"),
            ("a.b.C__c != null", "a.b.C__c Unequal null"),
            (
                "A = 1 AND B <> 2 and C < -3.5",
                "(A Equal 1 & B Unequal 2 & C Less -3.5)",
            ),
            (
                "A = 1 OR (B = 2 AND NOT C = 3)",
                "(A Equal 1 | (B Equal 2 & !C Equal 3))",
            ),
            ("NOT (A = 1 OR B = 2)", "!(A Equal 1 | B Equal 2)"),
            ("NOT A = 1 AND B = 2", "(!A Equal 1 & B Equal 2)"),
            ("Name IN ('a', 'b\\'c', '')", "Name [\"a\",\"b'c\",\"\"]"),
            ("Name not in ('a')", "Name not [\"a\"]"),
            ("Name LIKE 'Ac\\%me%'", "Name Like \"Ac%me%\""),
            ("L INCLUDES ('a;b','c')", "L has[\"a;b\",\"c\"]"),
            ("L excludes ('a')", "L not has[\"a\"]"),
            ("D >= 2026-03-31", "D AtLeast 2026-03-31"),
            (
                "T >= 2026-03-31T09:15:00Z",
                "T AtLeast 2026-03-31T09:15:00.000+0000",
            ),
            (
                "T < 2026-03-31T09:15:00.000+00:00",
                "T Less 2026-03-31T09:15:00.000+0000",
            ),
            (
                "T <= 2026-03-31T11:15:00.000+0200",
                "T AtMost 2026-03-31T09:15:00.000+0000",
            ),
            ("IsDeleted = TRUE", "IsDeleted Equal true"),
            (
                "Name = 'a\\\\b\\n\\t\\\"é🦀'",
                "Name Equal \"a\\\\b\\n\\t\\\"é🦀\"",
            ),
        ];
        for (text, shown) in table {
            let query = parse(&format!("SELECT Id FROM X WHERE {text}"))
                .unwrap_or_else(|e| panic!("{text}: {e:?}"));
            assert_eq!(show(&query.filter.unwrap()), shown, "{text}");
        }
    }

    #[test]
    fn whole_queries() {
        let query = parse(
            "select  Id,a.Name , Account.Owner.Email from Contact as a WHERE Id > '003' \
             ORDER BY Name desc nulls last, Id ASC NULLS FIRST limit 10 OFFSET 5 FOR VIEW",
        )
        .unwrap();
        assert_eq!(query.select.len(), 3);
        assert_eq!(query.from.parts, ["Contact"]);
        assert_eq!(query.alias.as_deref(), Some("a"));
        assert_eq!((query.limit, query.offset), (Some(10), 5));
        assert!(query.order[0].descending && query.order[0].nulls_last);
        assert!(!query.order[1].descending && !query.order[1].nulls_last);

        let query = parse("SELECT COUNT() FROM Account").unwrap();
        assert_eq!(query.select, [Selected::CountAll]);
        let query =
            parse("SELECT COUNT(Id) total, MAX(Amount) FROM Opportunity GROUP BY StageName")
                .unwrap();
        assert!(
            matches!(&query.select[0], Selected::Aggregate { function: Function::Count, alias: Some(alias), .. } if alias == "total")
        );
        assert_eq!(query.group_by.len(), 1);
        let query = parse("SELECT FIELDS(ALL) FROM Account LIMIT 200").unwrap();
        assert_eq!(query.select, [Selected::Fields(FieldGroup::All)]);
        let query =
            parse("SELECT Id, (SELECT Id FROM Contacts WHERE Name != null LIMIT 2) FROM Account")
                .unwrap();
        assert!(matches!(&query.select[1], Selected::Children(inner) if inner.limit == Some(2)));
    }

    #[test]
    fn what_is_no_query_is_refused() {
        let table = [
            ("", "SOQL statements can not be empty or null"),
            ("SELECT", "unexpected token: '<EOF>'"),
            ("SELECT Id", "unexpected token: '<EOF>'"),
            ("SELECT Id FORM Account", "unexpected token: 'Account'"),
            ("SELECT * FROM Account", "unexpected token: '*'"),
            ("SELECT Id, FROM Account", "unexpected token: 'FROM'"),
            ("SELECT Id FROM Account WHERE", "unexpected token: '<EOF>'"),
            (
                "SELECT Id FROM Account WHERE A = 1 AND B = 2 OR C = 3",
                "unexpected token: 'OR'",
            ),
            (
                "SELECT Id FROM Account WHERE A IS NULL",
                "unexpected token: 'IS'",
            ),
            (
                "SELECT Id FROM Account WHERE A = 'x",
                "line 1:35 mismatched character '<EOF>' expecting '''",
            ),
            (
                "SELECT Id FROM Account WHERE A = 2026-13-01",
                "unexpected token: '2026-13-01'",
            ),
            (
                "SELECT Id FROM Account WHERE A = 2026-03-31T09:15:00 00:00",
                "unexpected token: '2026-03-31T09:15:00'",
            ),
            ("SELECT Id FROM Account LIMIT x", "unexpected token: 'x'"),
            (
                "SELECT Id FROM Account LIMIT 1 LIMIT 2",
                "unexpected token: 'LIMIT'",
            ),
            (
                "SELECT Id FROM Account WHERE A = foo",
                "unexpected token: 'foo'",
            ),
            (
                "SELECT Id FROM Account WHERE A = \"x\"",
                "line 1:33 no viable alternative at character '\"'",
            ),
        ];
        for (text, message) in table {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code, "MALFORMED_QUERY", "{text}");
            assert_eq!(error.message, message, "{text}");
        }
    }
}
