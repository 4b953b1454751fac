//! What the target has, by our keys and by its ids.

use super::contacts;
use crate::load::Loader;
use crate::record::CanonicalKey;
use crate::testing::loader::{Driver, Harness, applied, contact, order};

/// Finds by our keys, with the order where the target carries one.
pub async fn finds_what_was_applied_and_nothing_else<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    let outcomes = driver.apply(entity, &contacts(3, 1)).await;
    driver.harness.settle().await;
    let near = |text: &str| CanonicalKey::parse(text).expect("a key");
    let (source, object, id, slot) = {
        let key = contact(0);
        let (a, b, c, d) = key.parts();
        (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned())
    };
    // Nothing that differs in only one part, in case or in length is found.
    let strangers = [
        near(&format!("hubspot/{object}/{id}#{slot}")),
        near(&format!("{source}/Lead/{id}#{slot}")),
        near(&format!("{source}/{object}/{id}0#{slot}")),
        near(&format!("{source}/{object}/{}#{slot}", &id[..id.len() - 1])),
        near(&format!("{source}/{object}/{id}#company")),
        near(&format!("{source}/{}/{id}#{slot}", object.to_lowercase())),
        near(&format!("{source}/{object}/nul\0{id}#{slot}")),
        contact(3),
    ];
    let ours = [contact(2), contact(0), contact(1)];
    let asked: Vec<_> = strangers[..4]
        .iter()
        .chain(&ours)
        .chain(&strangers[4..])
        .collect();
    let fresh = driver.harness.loader();
    let found = fresh.find(entity, &asked).await.expect("find");
    assert_eq!(found.len(), asked.len());
    for (key, found) in asked.iter().zip(&found) {
        match ours.iter().position(|own| own == *key) {
            None => assert_eq!(found, &None, "{key}"),
            Some(place) => {
                let found = found.as_ref().unwrap_or_else(|| panic!("{key}"));
                let place = [2, 0, 1][place];
                assert_eq!(Some(&found.id), applied(&outcomes[place]).id.as_ref());
                assert!(found.order.is_none_or(|found| found == order(1)));
                assert_eq!(found.order.is_some(), driver.support("contact").ordered);
            }
        }
    }
    let company = driver.entity("company");
    let other = fresh.find(company, &[&contact(0)]).await.expect("find");
    assert_eq!(other, [None], "another entity's record");
}

/// Reads by id, in the order that was asked for; what is not there is `None`.
pub async fn reads_by_id<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    let outcomes = driver.apply(entity, &contacts(2, 1)).await;
    let ids: Vec<_> = outcomes
        .iter()
        .map(|outcome| applied(outcome).id.clone().expect("an id"))
        .collect();
    let (nowhere, foreign) = ("999999".to_owned(), "no such id".to_owned());
    let asked = [&ids[1], &nowhere, &ids[0], &foreign];
    let read = driver.loader.read(entity, &asked).await.expect("read");
    assert_eq!(read.len(), 4);
    assert!(read[1].is_none() && read[3].is_none(), "{read:?}");
    for (place, number) in [(0, 1001), (2, 1000)] {
        let json = read[place].as_deref().expect("a record");
        serde_json::from_str::<serde_json::Value>(json).expect("JSON");
        assert!(json.contains(&format!("bio {number}")), "{json}");
    }
}
