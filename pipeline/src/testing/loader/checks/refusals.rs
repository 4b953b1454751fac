//! A record that the target refuses takes no other with it.

use super::contacts;
use crate::error::Class;
use crate::testing::loader::{Driver, Harness, Record, Row, applied, contact, rejected};

/// A bad record at each place of a batch.
pub async fn one_bad_record_rejects_only_itself<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    let count = 7;
    for bad in 0..count {
        let version = bad as i64 + 1;
        let mut records = contacts(count, version);
        spoil(&driver, &mut records[bad]);
        let before = driver.rows(entity).await;
        let outcomes = driver.apply(entity, &records).await;
        let rows = driver.rows(entity).await;
        for (place, outcome) in outcomes.iter().enumerate() {
            if place != bad {
                applied(outcome);
                continue;
            }
            assert_eq!(rejected(outcome).class(), Class::Record);
            // What stood there before still stands there.
            let key = records[bad].key.as_str();
            let values = |row: &Row| row.values.clone();
            assert_eq!(rows.get(key).map(values), before.get(key).map(values));
        }
        let good = driver.apply(entity, &contacts(count, version)).await;
        assert!(!applied(&good[bad]).newer, "the mended one is taken");
        driver.expect(entity, &contacts(count, version)).await;
    }
    assert_eq!(driver.harness.creates(entity).await, count);
}

/// Two, neighbours, all: every bad record is named, no good one is lost, and
/// deletes in the same batch are done.
pub async fn many_bad_records_reject_only_themselves<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(9, 1)).await;
    let cases: [&[usize]; 4] = [&[0, 8], &[3, 4], &[0, 1, 2, 3, 4, 6, 7, 8], &[2, 3, 7]];
    for (case, bad) in cases.iter().enumerate() {
        let mut records = contacts(9, case as i64 + 2);
        records[5] = Record::delete(&contact(5), case as i64 + 2);
        for &place in *bad {
            spoil(&driver, &mut records[place]);
        }
        let outcomes = driver.apply(entity, &records).await;
        for (place, outcome) in outcomes.iter().enumerate() {
            if bad.contains(&place) {
                rejected(outcome);
            } else {
                assert!(!applied(outcome).created);
            }
        }
        let rows = driver.rows(entity).await;
        assert!(rows[contact(5).as_str()].deleted);
        assert_eq!(rows.len(), 9);
    }
}

fn spoil<H: Harness>(driver: &Driver<H>, record: &mut Record) {
    if let Some(datum) = &mut record.datum {
        driver.harness.spoil(datum);
    }
}

/// As many as the loader says it takes, then the same again changed, with
/// deletes in between and a bad one near the end.
pub async fn a_batch_of_the_largest_size<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    let size = driver.support("contact").batch;
    let first = contacts(size, 1);
    let outcomes = driver.apply(entity, &first).await;
    assert!(outcomes.iter().all(|outcome| applied(outcome).created));
    driver.expect(entity, &first).await;
    let mut second = contacts(size, 2);
    let bad = size * 9 / 10;
    spoil(&driver, &mut second[bad]);
    for place in (0..bad).step_by(10) {
        second[place] = Record::delete(&contact(place), 2);
    }
    let outcomes = driver.apply(entity, &second).await;
    let rejects = outcomes
        .iter()
        .filter(|outcome| !matches!(outcome, crate::load::Outcome::Applied(_)));
    assert_eq!(rejects.count(), 1);
    rejected(&outcomes[bad]);
    let rows = driver.rows(entity).await;
    let gone = rows.values().filter(|row| row.deleted).count();
    assert_eq!((rows.len(), gone), (size, bad.div_ceil(10)));
    assert_eq!(driver.harness.creates(entity).await, size);
}
