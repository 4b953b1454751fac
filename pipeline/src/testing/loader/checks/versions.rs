//! The versions of a key: created, repeated, replaced, older, deleted, back.

use std::collections::HashSet;

use super::contacts;
use crate::testing::loader::content::full;
use crate::testing::loader::{Driver, Harness, Record, applied, contact, order};

/// New records are created, each with an id of its own.
pub async fn creates_and_returns_ids<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    let records = contacts(3, 1);
    let outcomes = driver.apply(entity, &records).await;
    let rows = driver.rows(entity).await;
    for (record, outcome) in records.iter().zip(&outcomes) {
        let applied = applied(outcome);
        assert!(applied.created && !applied.newer, "{applied:?}");
        assert_eq!(applied.id.as_ref(), Some(&rows[record.key.as_str()].id));
    }
    let ids: HashSet<_> = rows.values().map(|row| &row.id).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(driver.harness.creates(entity).await, 3);
    driver.expect(entity, &records).await;
}

/// The same version again, by a process that does not know of the first time.
pub async fn applying_twice_is_applying_once<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    let records = contacts(5, 1);
    driver.apply(entity, &records[..3]).await;
    let before = driver.rows(entity).await;
    driver.forget();
    let keys: Vec<_> = records.iter().map(|record| &record.key).collect();
    driver.recover(entity, &keys).await;
    let outcomes = driver.apply(entity, &records).await;
    for (place, outcome) in outcomes.iter().enumerate() {
        let applied = applied(outcome);
        assert_eq!(applied.created, place >= 3, "{applied:?}");
        assert!(!applied.newer, "{applied:?}");
    }
    let after = driver.rows(entity).await;
    for (key, row) in &before {
        assert_eq!(row.id, after[key].id);
    }
    assert_eq!(driver.harness.creates(entity).await, 5);
    driver.expect(entity, &records).await;
}

/// A newer version replaces every field, under the same id.
pub async fn newer_replaces_older<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(3, 1)).await;
    let before = driver.rows(entity).await;
    // Some are there, some are new.
    let newer = contacts(5, 2);
    let outcomes = driver.apply(entity, &newer).await;
    for (record, outcome) in newer.iter().zip(&outcomes) {
        let applied = applied(outcome);
        let known = before.get(record.key.as_str());
        assert_eq!(applied.created, known.is_none());
        assert!(known.is_none_or(|row| Some(&row.id) == applied.id.as_ref()));
    }
    driver.expect(entity, &newer).await;
    assert_eq!(driver.harness.creates(entity).await, 5);
}

/// Where the target is ordered, an older version changes nothing, by upsert or
/// by delete, and the loader says that something newer is there.
pub async fn older_is_refused_where_the_target_is_ordered<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    if !driver.support("contact").ordered {
        return;
    }
    let newest = contacts(4, 5);
    driver.apply(entity, &newest).await;
    // Older in each part of the order that can be older by itself.
    let mut older = contacts(4, 5);
    older[0].order = order(4);
    older[1].order.offset -= 1;
    older[2].order.mapping -= 1;
    older[3] = Record::delete(&contact(3), 4);
    older[3].order.offset += 100;
    for record in &mut older[..3] {
        record.datum = Some(full(entity, 99));
    }
    for knows_ids in [true, false] {
        if !knows_ids {
            driver.forget();
        }
        let outcomes = driver.apply(entity, &older).await;
        for outcome in &outcomes {
            let applied = applied(outcome);
            assert!(applied.newer && !applied.created, "{applied:?}");
            assert!(applied.id.is_some());
        }
        driver.expect(entity, &newest).await;
    }
    // Among older ones a newer one goes through.
    let mut mixed = older;
    mixed[1] = Record::upsert(&contact(1), 6, full(entity, 77));
    let outcomes = driver.apply(entity, &mixed).await;
    let newer: Vec<_> = outcomes.iter().map(|o| applied(o).newer).collect();
    assert_eq!(newer, [true, false, true, true]);
    let mut expected = newest;
    expected[1] = mixed[1].clone();
    driver.expect(entity, &expected).await;
}

/// Deletes what is there, shrugs at what is not, and takes a record back
/// under its old id.
pub async fn deletes_and_comes_back<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(2, 1)).await;
    let before = driver.rows(entity).await;
    let batch = [
        Record::delete(&contact(0), 2),
        Record::delete(&contact(7), 2),
    ];
    for _ in 0..2 {
        let outcomes = driver.apply(entity, &batch).await;
        let known = applied(&outcomes[0]);
        assert!(!known.created && !known.newer, "{known:?}");
        assert_eq!(known.id.as_ref(), Some(&before[contact(0).as_str()].id));
        let unknown = applied(&outcomes[1]);
        assert_eq!((&unknown.id, unknown.created), (&None, false));
        let rows = driver.rows(entity).await;
        let gone: Vec<_> = rows.values().map(|row| row.deleted).collect();
        assert_eq!(gone, [true, false]);
    }
    let back = contacts(2, 3);
    let outcomes = driver.apply(entity, &back).await;
    assert_eq!(
        applied(&outcomes[0]).id.as_ref(),
        Some(&before[contact(0).as_str()].id)
    );
    driver.expect(entity, &back).await;
    assert_eq!(driver.harness.creates(entity).await, 2);
    if driver.support("contact").ordered {
        driver
            .apply(entity, &[Record::delete(&contact(0), 9)])
            .await;
        let late = driver.apply(entity, &contacts(1, 8)).await;
        assert!(applied(&late[0]).newer, "{late:?}");
        assert!(driver.rows(entity).await[contact(0).as_str()].deleted);
    }
}
