//! Whatever stands in a configuration, reading it ends with a configuration or
//! with problems.

use proptest::prelude::*;

use super::tests::{PLAYBOOK, environment, schema};
use super::{Document, Part};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200), file in "m(.json|.yaml)?",
    ) {
        read(&file, &bytes);
    }

    #[test]
    fn any_text_of_the_grammar_is_read_or_refused(
        text in r#"([ \t\n]|[{}\[\],:"'#&*!|>%@`?-]|---|\.\.\.|\$\{|id|kafka|mappings|[0-9e.+-]|true|null|\\u|é|🦀|sourceConfig|client|objects|<<|\x00|\u{feff}|\r){0,60}"#,
        file in "m(.json|.yaml)?",
    ) {
        read(&file, text.as_bytes());
    }

    #[test]
    fn a_broken_document_is_read_or_refused(at in 0usize..220, byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = PLAYBOOK.as_bytes().to_vec();
        let at = at.min(bytes.len() - 1);
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        read("m.json", &bytes);
        read("m.yaml", &bytes);
    }
}

/// Whatever it is, it is read or refused, never a panic.
fn read(file: &str, bytes: &[u8]) {
    if let Ok(document) = Document::parse(file, bytes) {
        let schema = schema();
        let part = Part::Against(&schema);
        let _ = document.migration(&environment(&[]), part, Part::Plain);
    }
}
