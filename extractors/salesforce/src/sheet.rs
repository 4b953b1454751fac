//! From a page of a Bulk job's file to records (`reference/salesforce.md`
//! section 5).
//!
//! A CSV has no end of its own: a page that was cut may still be a CSV. So a
//! page is taken only if no quote is open, every row is as wide as the first,
//! and there are as many rows as the source says; the last column is the stamp,
//! which tells by itself whether it is whole.

use csv::StringRecord;
use drover_pipeline::Code;

use crate::query::Selection;
use crate::rows::{self, BROKEN, Row, Text, begin_field, change};
use crate::{id, time};

/// Reads a page that holds `count` rows, as the source says. The error says
/// what is wrong with the page as a whole.
pub fn read(
    text: &Text<'_>,
    count: usize,
    selection: &Selection<'_>,
    place: &str,
) -> Result<Vec<Row>, String> {
    let csv = text.text.strip_prefix('\u{feff}').unwrap_or(&text.text);
    if !csv
        .bytes()
        .filter(|byte| *byte == b'"')
        .count()
        .is_multiple_of(2)
    {
        return Err("it ends inside a value".to_owned());
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(csv.as_bytes());
    let mut lines = reader.records();
    let wrong = |error: csv::Error| match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, .. } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("line {line} has another number of values than the first one")
        }
        _ => "it is no CSV".to_owned(),
    };
    let mut found = Vec::with_capacity(count);
    if let Some(header) = lines.next() {
        let columns = columns(&header.map_err(wrong)?, selection)?;
        let mut whole = true;
        for (at, line) in lines.enumerate() {
            let line = line.map_err(wrong)?;
            // The last column is never empty.
            whole = line.iter().next_back().is_none_or(|cell| !cell.is_empty());
            let place = || format!("{} behind {place}, row {}", selection.object, at + 1);
            found.push(row(text, &line, &columns, selection, place));
        }
        if !whole {
            return Err("it ends inside its last row".to_owned());
        }
    }
    if found.len() != count {
        let rows = found.len();
        return Err(format!(
            "it holds {rows} rows where the source says {count}"
        ));
    }
    Ok(found)
}

/// In which column each field stands.
fn columns(header: &StringRecord, selection: &Selection<'_>) -> Result<Vec<usize>, String> {
    let place = |name: &&str| {
        let found = header.iter().position(|column| column == *name);
        found.ok_or_else(|| format!("it lacks the column {name}, which was asked for"))
    };
    selection.fields.iter().map(place).collect()
}

fn row(
    text: &Text<'_>,
    line: &StringRecord,
    columns: &[usize],
    selection: &Selection<'_>,
    place: impl Fn() -> String,
) -> Row {
    let cell = |name: &str| {
        let at = selection.fields.iter().position(|field| *field == name);
        at.and_then(|at| line.get(columns[at]))
    };
    let mut row = Row {
        id: cell("Id").and_then(id::normalise),
        stamp: cell(selection.stamp).and_then(time::parse),
        content: Err(rows::bad(String::new(), Code::InvalidUtf8, BROKEN, "")),
    };
    let whole = || serde_json::to_string(&line.iter().collect::<Vec<_>>()).unwrap_or_default();
    if !line.iter().any(|cell| text.is_broken(cell)) {
        let deleted = selection.deletable && cell("IsDeleted") == Some("true");
        let made = change(&row, deleted, || body(line, columns, selection));
        row.content =
            made.map_err(|(code, message)| rows::bad(String::new(), code, &message, &whole()));
    } else if let Err(bad) = &mut row.content {
        bad.body = whole();
    }
    if let Err(bad) = &mut row.content {
        bad.place = row.id.clone().unwrap_or_else(place);
    }
    row
}

fn body(
    line: &StringRecord,
    columns: &[usize],
    selection: &Selection<'_>,
) -> Result<String, (Code, String)> {
    let mut body = String::with_capacity(line.as_slice().len() + 24 * columns.len());
    for (at, (name, kind)) in selection.fields.iter().zip(&selection.kinds).enumerate() {
        begin_field(name, at, &mut body);
        let cell = line.get(columns[at]).unwrap_or_default();
        if !kind.push_cell(cell, &mut body) {
            let message = format!("the value of {name} is none of its type");
            return Err((Code::InvalidBody, message));
        }
    }
    body.push('}');
    Ok(body)
}

#[cfg(test)]
mod tests {
    use drover_pipeline::extract::{Object, SourceField};
    use drover_pipeline::record::Op;

    use super::*;

    fn object() -> Object {
        let fields = [
            ("Id", "id"),
            ("IsDeleted", "boolean"),
            ("SystemModstamp", "datetime"),
            ("Name", "string"),
            ("Amount", "currency"),
        ];
        let field = |(name, kind): (&str, &str)| SourceField {
            name: name.to_owned(),
            kind: kind.to_owned(),
            ..SourceField::default()
        };
        Object {
            name: "Opportunity".to_owned(),
            fields: fields.map(field).to_vec(),
            ..Object::default()
        }
    }

    fn page(bytes: &[u8], count: usize) -> Result<Vec<Row>, String> {
        let object = object();
        let selection = Selection::of(&object).expect("a selection");
        read(&Text::of(bytes), count, &selection, "the start")
    }

    const HEADER: &str = "\"Id\",\"IsDeleted\",\"Name\",\"Amount\",\"SystemModstamp\"\n";
    const ROW: &str = "\"001dM00003kS5tZ\",\"false\",\"a,\r\n\"\"b\"\"\n\",\"15000\",\"2026-03-31T09:15:00.000Z\"\n";

    #[test]
    fn a_row_gives_the_body_that_rest_gives() {
        let rows = page(format!("{HEADER}{ROW}").as_bytes(), 1).expect("a page");
        let change = rows[0].content.as_ref().expect("a change");
        assert_eq!((change.op, change.version), (Op::Upsert, 1_774_948_500_000));
        assert_eq!(
            change.body.as_deref(),
            Some(
                r#"{"Id":"001dM00003kS5tZQAS","IsDeleted":false,"SystemModstamp":"2026-03-31T09:15:00.000+0000","Name":"a,\r\n\"b\"\n","Amount":15000.0}"#
            )
        );
        assert_eq!(page(b"", 0).map(|rows| rows.len()), Ok(0));
        assert_eq!(page(HEADER.as_bytes(), 0).map(|rows| rows.len()), Ok(0));
    }

    #[test]
    fn a_page_cut_anywhere_is_no_page() {
        let whole = format!("{HEADER}{ROW}{ROW}");
        for end in (0..whole.len() - 1).filter(|end| whole.is_char_boundary(*end)) {
            let cut = page(&whole.as_bytes()[..end], 2);
            assert!(cut.is_err(), "cut at {end} of {}", whole.len());
        }
        // Without its last line feed nothing is missing.
        assert!(page(&whole.as_bytes()[..whole.len() - 1], 2).is_ok());
        assert!(page(whole.as_bytes(), 3).is_err());
        let narrow = whole.replacen("\"Amount\",", "", 1);
        assert!(page(narrow.as_bytes(), 2).is_err());
    }

    #[test]
    fn one_bad_row_spoils_only_itself() {
        let rows = [
            ROW.to_owned(),
            ROW.replace("001dM", "'; --"),
            ROW.replace("2026-03", "2026-33"),
            ROW.replace("15000", "much"),
            ROW.replace("false", "true"),
            ROW.replace("a,", "?"),
        ];
        let mut bytes = format!("{HEADER}{}", rows.concat()).into_bytes();
        let at = bytes.iter().rposition(|byte| *byte == b'?').expect("there");
        bytes[at] = 0xff;
        let rows = page(&bytes, 6).expect("a page");
        let codes: Vec<_> = rows
            .iter()
            .map(|row| row.content.as_ref().map(|it| it.op).map_err(|bad| bad.code))
            .collect();
        assert_eq!(
            codes,
            [
                Ok(Op::Upsert),
                Err(Code::MissingId),
                Err(Code::InvalidBody),
                Err(Code::InvalidBody),
                Ok(Op::Delete),
                Err(Code::InvalidUtf8),
            ]
        );
        let bad = rows[3].content.as_ref().expect_err("no record");
        assert_eq!(bad.place, "001dM00003kS5tZQAS");
        assert!(bad.message.contains("Amount") && !bad.message.contains("much"));
    }
}
