//! Whatever is asked, the answer is a query or an error of the API, never a
//! panic.

use proptest::prelude::*;

use super::parser::parse;

const WHOLE: &str = "SELECT Id, toLabel(Status), Account.Owner.Name, COUNT(Id) c, \
    (SELECT Id FROM Contacts WHERE Email != null ORDER BY Id LIMIT 2), \
    TYPEOF Who WHEN Lead THEN Company ELSE Name END \
    FROM Contact WHERE (Name LIKE 'A\\'%' OR NOT Amount >= 1.5e3) AND CreatedDate = LAST_N_DAYS:3 \
    AND Id IN ('003', '004') AND AccountId NOT IN (SELECT Id FROM Account) \
    AND SystemModstamp > 2026-01-02T03:04:05.678Z \
    GROUP BY Status HAVING COUNT(Id) > 1 ORDER BY Name DESC NULLS LAST LIMIT 10 OFFSET 5 ALL ROWS";

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,80}") {
        read(&text)?;
    }

    #[test]
    fn any_words_of_the_language_are_read_or_refused(
        text in r#"((SELECT|FROM|WHERE|ORDER BY|GROUP BY|HAVING|LIMIT|OFFSET|TYPEOF|WHEN|THEN|ELSE|END|AND|OR|NOT|IN|LIKE|NULLS|ALL ROWS|FOR VIEW|Id|Name|Account\.Name|COUNT\(\)|FIELDS\(ALL\)|LAST_N_DAYS:|TODAY|null|true|'a\\'|'|\(|\)|,|[<>=!]{1,2}|-?[0-9.e:TZ+-]{1,9}|é|🦀|\n)[ \n]?){0,30}"#,
    ) {
        read(&text)?;
    }

    #[test]
    fn a_broken_query_is_read_or_refused(
        at in 0usize..WHOLE.len(), with in r#"['"()\\,.:=<>% a0é\n]|"#, cut in any::<bool>(),
    ) {
        let end = if cut { WHOLE.len() } else { at + 1 };
        read(&format!("{}{with}{}", &WHOLE[..at], &WHOLE[end..]))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_query_of_any_depth_is_read_or_refused(depth in 0usize..20_000, open in "\\(|NOT |NOT\\(|\\(SELECT Id FROM a WHERE ") {
        read(&format!("SELECT Id FROM Contact WHERE {}", open.repeat(depth)))?;
    }
}

#[test]
fn the_whole_one_is_judged() {
    read(WHOLE).expect("a query, or an error");
}

/// Read, or refused with a code and a message.
fn read(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = parse(text) {
        prop_assert!(!error.code.is_empty() && !error.message.is_empty());
        prop_assert!(error.status.is_client_error());
    }
    Ok(())
}
