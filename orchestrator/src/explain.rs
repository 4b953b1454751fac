//! `drover explain`: an error's page, as it lies in `docs/errors/`.

use drover_pipeline::Code;
use serde_json::json;

use crate::cli::{Format, print, print_json};
use crate::failure::{Failure, Result};
use crate::table::{Column, table};

/// Prints the code's page; without a code, a list of all.
pub(crate) fn run(code: Option<&str>, format: Format) -> Result<()> {
    let Some(text) = code else {
        match format {
            Format::Json => print_json(&Code::ALL.iter().map(|c| facts(*c)).collect::<Vec<_>>()),
            Format::Table => print(&list()),
        }
        return Ok(());
    };
    let wanted = text.to_ascii_uppercase();
    let code = Code::ALL.iter().find(|code| code.as_str() == wanted);
    let code = *code.ok_or_else(|| {
        let told = format!("there is no code `{text}`");
        Failure::new(Code::ConfigInvalid, told, "`drover explain` lists them")
    })?;
    match format {
        Format::Json => print_json(&facts(code)),
        Format::Table => print(code.page()),
    }
    Ok(())
}

fn facts(code: Code) -> serde_json::Value {
    json!({
        "code": code.as_str(),
        "class": code.class().as_str(),
        "advice": code.advice(),
        "page": format!("docs/errors/{code}.md"),
        "text": code.page(),
    })
}

fn list() -> String {
    let columns = [
        Column::Text("CODE"),
        Column::Text("CLASS"),
        Column::Text("WHAT TO DO"),
    ];
    let rows: Vec<Vec<String>> = Code::ALL
        .iter()
        .map(|code| {
            vec![
                code.as_str().to_owned(),
                code.class().as_str().to_owned(),
                code.advice().to_owned(),
            ]
        })
        .collect();
    table(&columns, &rows)
}

/// The line behind errors that says where their pages are.
pub(crate) fn hint(codes: &[Code]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for code in codes {
        if !names.contains(&code.as_str()) {
            names.push(code.as_str());
        }
    }
    match names.as_slice() {
        [] => String::new(),
        names => format!("more: drover explain {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_fits_and_the_hint_names_each_code_once() {
        let text = list();
        for code in Code::ALL {
            let begins = |line: &str| line.split_whitespace().next() == Some(code.as_str());
            assert_eq!(
                text.lines().filter(|line| begins(line)).count(),
                1,
                "{code}"
            );
        }
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        let codes = [Code::ConfigInvalid, Code::ConfigInvalid, Code::TopicMissing];
        assert_eq!(
            hint(&codes),
            "more: drover explain CONFIG_INVALID, TOPIC_MISSING"
        );
        assert!(run(Some("NOPE"), Format::Table).is_err());
    }
}
