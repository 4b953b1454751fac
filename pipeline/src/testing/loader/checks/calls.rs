//! The loader as a whole: what it says of itself, calls side by side, restarts.

use std::collections::HashSet;

use super::contacts;
use crate::load::Loader;
use crate::testing::loader::content::full;
use crate::testing::loader::{Driver, Harness, applied, contact, order};

/// The loader names entities that exist, each once, with a size it can take.
pub async fn describes_itself<H: Harness>(harness: H) {
    let loader = harness.loader();
    let mut seen = HashSet::new();
    for support in loader.entities() {
        assert!(
            drover_schemas::entity(&support.entity).is_some(),
            "{}",
            support.entity
        );
        assert!(support.batch > 0, "{}", support.entity);
        assert!(!support.lease.length.is_zero(), "{}", support.entity);
        assert!(seen.insert(support.entity.clone()), "{}", support.entity);
    }
    assert!(!seen.is_empty());
    // `spec` tells what is taken before there is a configuration.
    assert_eq!(seen, H::Loader::takes().into_iter().collect());
    assert!(
        H::Loader::NAME
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    );
}

/// An empty batch has no outcomes, and no keys are found nowhere.
pub async fn an_empty_batch_is_nothing<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    assert!(driver.apply(entity, &[]).await.is_empty());
    assert!(
        driver
            .loader
            .find(entity, &[])
            .await
            .expect("find")
            .is_empty()
    );
    assert!(
        driver
            .loader
            .read(entity, &[])
            .await
            .expect("read")
            .is_empty()
    );
}

/// Batches of different entities at the same time.
pub async fn entities_side_by_side<H: Harness>(harness: H) {
    let driver = Driver::new(harness).await;
    let loader = &driver.loader;
    let send = async |name: &'static str| {
        let entity = drover_schemas::entity(name).expect("an entity");
        for version in 1..=5 {
            let keys: Vec<_> = (0..20).map(contact).collect();
            let data: Vec<_> = (0..20).map(|n| full(entity, version * 100 + n)).collect();
            let found = loader
                .find(entity, &keys.iter().collect::<Vec<_>>())
                .await
                .expect("find");
            let items: Vec<_> = (0..20)
                .map(|n| crate::load::Item {
                    key: &keys[n],
                    entity,
                    order: order(version),
                    version: order(version).version,
                    target_id: found[n].as_ref().map(|found| &found.id),
                    write: crate::load::Write::Upsert {
                        datum: &data[n],
                        links: Vec::new(),
                    },
                })
                .collect();
            for outcome in loader.apply(&items).await.expect("apply") {
                assert!(!applied(&outcome).newer);
            }
            driver.harness.settle().await;
        }
    };
    futures::join!(send("contact"), send("company"), send("deal"), send("lead"));
    for name in ["contact", "company", "deal", "lead"] {
        let entity = driver.entity(name);
        let rows = driver.rows(entity).await;
        assert_eq!(rows.len(), 20, "{name}");
        assert_eq!(driver.harness.creates(entity).await, 20, "{name}");
    }
}

/// Preparing again, and from several processes at once, changes nothing; the
/// plan is empty afterwards.
pub async fn prepares_twice_and_at_once<H: Harness>(harness: H) {
    let loaders = [harness.loader(), harness.loader(), harness.loader()];
    let prepared = futures::future::join_all(loaders.iter().map(Loader::prepare)).await;
    for result in prepared {
        result.expect("prepare");
    }
    let mut driver = Driver::new(harness).await;
    assert_eq!(driver.loader.plan().await.expect("plan"), [""; 0]);
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(2, 1)).await;
    driver.loader.prepare().await.expect("prepare");
    driver.expect(entity, &contacts(2, 1)).await;
}

/// The target restarts between two batches: at the worst the next one fails
/// with a Transient error and goes through when it is sent again.
pub async fn survives_a_restart_of_the_target<H: Harness>(harness: H) {
    let mut driver = Driver::new(harness).await;
    let entity = driver.entity("contact");
    driver.apply(entity, &contacts(3, 1)).await;
    for version in 2..5 {
        driver.harness.restart().await;
        let records = contacts(3 + version as usize, version);
        driver.deliver(entity, &records).await;
        driver.expect(entity, &records).await;
        assert_eq!(driver.harness.creates(entity).await, records.len());
    }
}
