//! Whatever stands in a mapping, reading it ends with a mapping or with
//! problems, each with its path and line.

use proptest::prelude::*;

use super::Mapping;

const WHOLE: &str = r#"
objects:
  Contact:
    ignore: [attributes, Id]
    slots:
      contact:
        entity: contact
        where: {IsDeleted: [false, null]}
        emptyWithout: [LastName]
        fields:
          lastName: LastName
          name: {constant: $object}
          companyId: {from: AccountId, reference: "Account#company", required: true}
          status: {from: Status, or: State, values: {Open: open}, default: none}
customObjects:
  slots:
    record: {entity: record, fields: {name: Name}}
"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_of_the_grammar_is_read_or_refused(
        text in r#"([ \n]|[{}\[\],:"'#&*!|>%@`?$-]|---|\n  |objects|customObjects|slots|fields|entity|contact|where|from|reference|Account#company|required|constant|values|default|emptyWithout|true|null|[0-9e.+-]|é|🦀|\x00|\u{feff}|\r|\t){0,60}"#,
        file in "m(.json|.yaml)?",
    ) {
        read(&file, &text)?;
    }

    #[test]
    fn a_broken_mapping_is_read_or_refused(
        at in 0usize..WHOLE.len(), with in r#"[{}\[\]:"'#&*a0 \n]|"#, cut in any::<bool>(),
    ) {
        let end = if cut { WHOLE.len() } else { at + 1 };
        let text = format!("{}{with}{}", &WHOLE[..at], &WHOLE[end..]);
        read("m.yaml", &text)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_mapping_of_any_depth_is_read_or_refused(depth in 0usize..5_000, open in "[\\[{]|- |a: ") {
        read("m.yaml", &open.repeat(depth))?;
    }
}

#[test]
fn the_whole_one_is_read() {
    assert!(Mapping::parse("m.yaml", WHOLE).is_ok());
}

/// Read, or refused with at least one problem that says something.
fn read(file: &str, text: &str) -> Result<(), TestCaseError> {
    if let Err(problems) = Mapping::parse(file, text) {
        prop_assert!(!problems.is_empty());
        prop_assert!(
            problems
                .iter()
                .all(|problem| !problem.to_string().is_empty())
        );
    }
    Ok(())
}
