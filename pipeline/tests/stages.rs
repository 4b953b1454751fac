//! The three runners together on librdkafka's in-process mock broker: fast, and
//! without what the mock lacks (compaction, isolation, administration, offsets
//! committed in transactions), which is proved on a real broker: here where it
//! is about how the runners watch each other, else in the workspace's `tests/`.

mod broker;
mod complaints;
mod durable;
mod rig;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use drover_pipeline::config::Problem;
use drover_pipeline::envelope::Envelope;
use drover_pipeline::http::HttpClient;
use drover_pipeline::idempotency::{Entry, State, TargetId};
use drover_pipeline::kafka::compacted::{read_to_end, scan};
use drover_pipeline::load::{EntitySupport, Found, Item, Loader, Outcome};
use drover_pipeline::parking::{Parked, Reason};
use drover_pipeline::record::CanonicalKey;
use drover_pipeline::spec::Stage;
use drover_pipeline::status::Phase;
use drover_pipeline::transform::{Convert, FieldRule, ObjectMapping, Slot};
use drover_pipeline::{Code, Error, Result};
use drover_schemas::Entity;

use broker::Broker;
use rig::*;

async fn whole_way(target: Target) {
    let mut rig = Rig::new(target);
    for n in 0..40 {
        rig.source
            .add("company", &n.to_string(), 1, name(&format!("company {n}")));
        let body = serde_json::json!({"name": format!("contact {n}"), "parent": n.to_string()});
        rig.source
            .add("contact", &n.to_string(), 1, Some(body.to_string()));
    }
    // A child whose parent comes later, one that is never to come, one that
    // links to itself, one that can't be mapped and one that is refused.
    let late = serde_json::json!({"name": "late", "parent": "99"}).to_string();
    rig.source.add("contact", "late", 1, Some(late));
    let orphan = serde_json::json!({"name": "orphan", "parent": "never"}).to_string();
    rig.source.add("contact", "orphan", 1, Some(orphan));
    let own = serde_json::json!({"name": "own boss", "parent": "1", "manager": "own"}).to_string();
    rig.source.add("contact", "own", 1, Some(own));
    rig.source.add("contact", "bad", 1, Some("bad".into()));
    rig.source.add("company", "no", 1, name("refuse me"));
    rig.run();
    rig.until("the snapshot", |rig| {
        rig.rows().len() == 81 && rig.parked().len() == 2 && rig.letters().len() == 2
    })
    .await;
    assert_eq!(
        rig.parked()
            .keys()
            .cloned()
            .collect::<std::collections::BTreeSet<_>>(),
        ["fake/contact/late#main", "fake/contact/orphan#main"]
            .map(str::to_owned)
            .into()
    );

    // The parent comes, a record changes, one goes, the dead ones are mended.
    rig.source.add("company", "99", 2, name("at last"));
    rig.source.add("company", "3", 2, name("renamed"));
    rig.source.add("contact", "4", 2, None);
    rig.source.add("company", "no", 2, name("mended"));
    rig.source.add("contact", "bad", 2, name("mended"));
    rig.until("the changes", |rig| {
        let rows = rig.rows();
        rows.contains_key("fake/contact/late#main")
            && rows["fake/company/3#main"].name == "renamed"
            && rows["fake/contact/4#main"].deleted
            && rows.contains_key("fake/company/no#main")
            && rows.contains_key("fake/contact/bad#main")
            && rig.letters().is_empty()
            && rig.parked().len() == 1
    })
    .await;

    let rows = rig.rows();
    assert_eq!(rows.len(), 85);
    let entries = rig.entries();
    assert_eq!(entries.len(), 85);
    assert_eq!(rig.target.creates.load(Ordering::SeqCst), 85, "no doubles");
    for n in (0..40).filter(|n| *n != 4) {
        let row = &rows[&format!("fake/contact/{n}#main")];
        let company = entries[&format!("fake/company/{n}#main")].target_id.clone();
        assert_eq!(row.links.get("companyId"), company.as_ref(), "{n}");
    }
    let own = &rows["fake/contact/own#main"];
    assert_eq!(
        own.links.get("managerId"),
        entries["fake/contact/own#main"].target_id.as_ref(),
        "the link to itself was made in a second step"
    );
    for (key, entry) in &entries {
        match key.as_str() {
            "fake/contact/4#main" => assert!(matches!(entry.state, State::Deleted { .. })),
            _ => assert_eq!(entry.state, State::Applied, "{key}"),
        }
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_way_into_a_target_that_orders() {
    whole_way(Target {
        ordered: true,
        ..Target::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_way_into_a_target_that_needs_pending_with_a_lost_answer() {
    let target = Target::default();
    target.lose_answer.store(true, Ordering::SeqCst);
    whole_way(target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_reads_its_state_and_writes_nothing_twice() {
    let mut rig = Rig::new(Target::default());
    for n in 0..30 {
        rig.source
            .add("company", &n.to_string(), 1, name(&format!("company {n}")));
    }
    rig.run();
    rig.until("the snapshot", |rig| rig.entries().len() == 30)
        .await;
    rig.stop().await;
    rig.source.add("company", "3", 2, name("renamed"));
    rig.run();
    rig.until("the change", |rig| {
        rig.rows()["fake/company/3#main"].name == "renamed"
    })
    .await;
    assert_eq!(rig.target.creates.load(Ordering::SeqCst), 30);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_still_waits_after_the_same_record_came_again() {
    let mut rig = Rig::new(Target {
        ordered: true,
        ..Target::default()
    });
    let child = serde_json::json!({"name": "child", "manager": "boss"}).to_string();
    rig.source.add("contact", "child", 1, Some(child.clone()));
    rig.run();
    rig.until("the child", |rig| {
        rig.rows().len() == 1 && rig.parked().len() == 1
    })
    .await;
    let order = rig.parked()["fake/contact/child#main"].order;
    rig.source.add("contact", "child", 1, Some(child));
    rig.until("the same again", |rig| {
        rig.parked()
            .get("fake/contact/child#main")
            .is_some_and(|parked| parked.order > order)
    })
    .await;
    rig.source.add("contact", "boss", 1, name("boss"));
    rig.until("the link", |rig| {
        rig.rows()["fake/contact/child#main"]
            .links
            .contains_key("managerId")
    })
    .await;
    rig.until("nothing waits", |rig| rig.parked().is_empty())
        .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_taken_back_by_a_success_of_the_same_batch() {
    let mut rig = Rig::new(Target {
        ordered: true,
        ..Target::default()
    });
    rig.source.add("contact", "k", 1, Some("bad".into()));
    rig.source.add("contact", "k", 2, name("good"));
    rig.run();
    rig.until("the good version", |rig| {
        rig.entries().len() == 1 && rig.letters().is_empty()
    })
    .await;
    assert_eq!(rig.rows()["fake/contact/k#main"].name, "good");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_record_that_arrives_is_no_dead_letter_any_more() {
    let mut rig = Rig::new(Target::default());
    rig.source.add("company", "k", 1, name("refuse me"));
    rig.run();
    rig.until("the refusal", |rig| rig.letters().len() == 1)
        .await;
    rig.source.add("company", "k", 2, name("good"));
    rig.until("the good version", |rig| {
        let entries = rig.entries();
        entries.values().any(|entry| entry.state == State::Applied)
    })
    .await;
    // One transaction holds the entry and the letter's end.
    assert_eq!(rig.letters().len(), 0);
    assert_eq!(rig.rows()["fake/company/k#main"].name, "good");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_refused_after_a_lost_create_does_not_lead_to_a_second_create() {
    let mut rig = Rig::new(Target {
        lease: Some(Duration::from_secs(4)),
        ..Target::default()
    });
    rig.target.lose_answer.store(true, Ordering::SeqCst);
    rig.source.add("company", "k", 1, name("good"));
    rig.run();
    rig.until("the create whose answer is lost", |rig| {
        rig.target.creates.load(Ordering::SeqCst) == 1
    })
    .await;
    rig.source.add("company", "k", 2, name("refuse me"));
    rig.until("the refusal", |rig| rig.letters().len() == 1)
        .await;
    // Had the second version come after the lease, the first one would have been
    // recovered by itself, and an entry would know of it whatever follows.
    let sent = rig.target.sent.lock().expect("lock").len();
    assert_eq!(sent, 2, "the lost create was sent again");
    rig.source.add("company", "k", 3, name("mended"));
    rig.until("the mended version", |rig| {
        rig.rows()
            .get("fake/company/k#main")
            .is_some_and(|row| row.name == "mended")
            && rig.letters().is_empty()
    })
    .await;
    assert_eq!(rig.target.creates.load(Ordering::SeqCst), 1, "no doubles");
    rig.end().await;
}

/// Long after everything that these tests write.
const LATER: i64 = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_are_copied_first_and_nothing_is_parked() {
    let Some(mut rig) = Rig::real(Target::default()) else {
        return;
    };
    *rig.source.endless.lock().expect("lock") = Some("company");
    for n in 0..60 {
        let id = n.to_string();
        rig.source.add("company", &id, 1, name(&format!("c{n}")));
        let body = contact(&format!("p{n}"), &[("parent", &id)]);
        rig.source.add("contact", &id, 1, body);
    }
    rig.run();
    rig.until("the companies, whose copy goes on", |rig| {
        let waits = rig.lane("contact").and_then(|lane| lane.waits_for);
        rig.rows().len() == 60 && waits.is_some_and(|why| why.contains("first copy of company"))
    })
    .await;
    *rig.source.endless.lock().expect("lock") = None;
    rig.until("the contacts", |rig| rig.rows().len() == 120)
        .await;
    assert_eq!(rig.counts("contact").parked, 0, "parents came first");
    let lane = rig.lane("contact").expect("its lane");
    assert_eq!((lane.phase, lane.waits_for), (Phase::Running, None));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_does_not_wait_for_a_blocked_one_and_parking_costs_one_turn_a_child() {
    const CHILDREN: u64 = 200;
    let mut rig = Rig::new(Target {
        ordered: true,
        ..Target::default()
    });
    *rig.target.trouble.lock().expect("lock") = Some(Code::Forbidden);
    for n in 0..CHILDREN {
        let id = n.to_string();
        rig.source.add("company", &id, 1, name(&format!("c{n}")));
        let body = contact(&format!("p{n}"), &[("parent", &id)]);
        rig.source.add("contact", &id, 1, body);
    }
    rig.run();
    rig.until("all are parked", |rig| {
        rig.counts("contact").parked == CHILDREN
    })
    .await;
    let lane = rig.lane("company").expect("its lane");
    assert_eq!(lane.phase, Phase::Blocked);
    // A person mends it and starts the loader again. It alone: the mock broker keeps
    // no offsets of transactions, so that a transformer would send all of them again.
    *rig.target.trouble.lock().expect("lock") = None;
    rig.stop().await;
    rig.load();
    rig.until("everything", |rig| {
        rig.rows().len() == 2 * CHILDREN as usize && rig.parked().is_empty()
    })
    .await;
    let counts = rig.counts("contact");
    let work = (counts.released, counts.applied, counts.parked);
    assert_eq!(work, (CHILDREN, CHILDREN, 0), "one turn a child");
    // A child on its way when its parent comes may be looked at once more.
    assert!(counts.stale < CHILDREN / 4, "{} were stale", counts.stale);
    let mut written = 0;
    let topic = rig.topics.parked();
    scan(&rig.client(), &topic, |_, _, _, _| written += 1).expect("the topic");
    assert_eq!(written, 2 * CHILDREN, "parked once, released once");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_in_vain_comes_to_an_end_and_is_healed_when_the_parent_comes() {
    let Some(mut rig) = Rig::real(Target::default()) else {
        return;
    };
    rig.source.as_of.store(LATER, Ordering::SeqCst);
    rig.source.add("company", "1", 1, name("there"));
    rig.source.add("company", "gone", 1, None);
    for (id, parent) in [("a", "1"), ("b", "gone"), ("c", "unknown")] {
        let body = contact(id, &[("parent", parent)]);
        rig.source.add("contact", id, 1, body);
    }
    let body = contact("d", &[("parent", "1"), ("manager", "c")]);
    rig.source.add("contact", "d", 1, body);
    rig.run();
    rig.until("they end", |rig| {
        let dropped = |parked: Parked| matches!(parked.reason, Reason::Dropped { .. });
        let d = rig.parked().remove("fake/contact/d#main");
        rig.causes().len() == 2 && rig.rows().len() == 3 && d.is_some_and(dropped)
    })
    .await;
    assert_eq!(rig.parked().len(), 1, "only the link that was dropped");
    assert_eq!(rig.counts("contact").unlinked, 1);
    let causes = rig.causes();
    let (code, message) = &causes["fake/contact/b#main"];
    assert_eq!(code, "PARENT_NEVER_COMES");
    assert_eq!(
        message,
        "refers to fake/company/gone#main, which never comes: the source has deleted it"
    );
    let (code, message) = &causes["fake/contact/c#main"];
    assert_eq!(code, "PARENT_NEVER_COMES");
    assert_eq!(
        message,
        "refers to fake/company/unknown#main, which never comes: \
         the source was read past it and does not show it"
    );

    // Both parents come after all: one is undeleted, one was not visible.
    rig.source.add("company", "gone", 2, name("back"));
    rig.source.add("company", "unknown", 2, name("seen"));
    rig.until("everything is healed", |rig| {
        rig.rows().len() == 7
            && rig.causes().is_empty()
            && rig.parked().is_empty()
            && rig.rows()["fake/contact/d#main"].links.len() == 2
    })
    .await;
    assert_eq!(rig.target.creates.load(Ordering::SeqCst), 7, "no doubles");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphan_is_healed_by_a_loader_that_starts_later() {
    let Some(mut rig) = Rig::real(Target::default()) else {
        return;
    };
    rig.source.as_of.store(LATER, Ordering::SeqCst);
    let body = contact("c", &[("parent", "late")]);
    rig.source.add("contact", "c", 1, body);
    rig.run();
    rig.until("it ends", |rig| rig.causes().len() == 1).await;
    rig.stop().await;
    rig.source.add("company", "late", 2, name("late"));
    rig.run();
    rig.until("it is healed", |rig| {
        rig.rows().len() == 2 && rig.causes().is_empty()
    })
    .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn circles_of_links_are_made_in_two_steps_where_one_of_them_is_optional() {
    let required = |field: &str, parent: &str| {
        let rule = FieldRule::Rule(Convert {
            from: Some("x".into()),
            reference: Some(format!("{parent}#main")),
            required: true,
            ..Convert::default()
        });
        (field.to_owned(), rule)
    };
    let objects = ["company", "contact", "boss"];
    let mut rig = Rig::on(Broker::mock(), Target::default(), &objects, |plan| {
        let main = |rules: Vec<(String, FieldRule)>| ObjectMapping {
            slots: BTreeMap::from([(
                "main".to_owned(),
                Slot {
                    entity: "contact".into(),
                    fields: rules.into_iter().collect(),
                    ..Slot::default()
                },
            )]),
            ..ObjectMapping::default()
        };
        let objects = &mut plan.mapping.objects;
        objects.insert("contact".into(), main(vec![required("managerId", "boss")]));
        objects.insert("boss".into(), main(Vec::new()));
    });
    rig.source.as_of.store(LATER, Ordering::SeqCst);
    // Optional both ways, and to itself; required one way; required both ways.
    for (id, boss) in [("x", "y"), ("y", "x"), ("z", "z")] {
        rig.source
            .add("boss", id, 1, contact(id, &[("boss", boss)]));
    }
    rig.source
        .add("boss", "b", 1, contact("b", &[("manager", "a")]));
    rig.source
        .add("contact", "a", 1, contact("a", &[("boss", "b")]));
    for (id, manager) in [("p", "q"), ("q", "r"), ("r", "p"), ("s", "s")] {
        let body = contact(id, &[("manager", manager)]);
        rig.source.add("contact", id, 1, body);
    }
    rig.run();
    rig.until("all links, and dead letters for the others", |rig| {
        let rows = rig.rows();
        rows.len() == 5
            && rows.values().all(|row| row.links.contains_key("managerId"))
            && rig.causes().len() == 4
            && rig.parked().is_empty()
    })
    .await;
    let (rows, entries) = (rig.rows(), rig.entries());
    for (id, of) in [
        ("boss/x", "boss/y"),
        ("boss/y", "boss/x"),
        ("boss/z", "boss/z"),
        ("boss/b", "contact/a"),
        ("contact/a", "boss/b"),
    ] {
        let link = rows[&format!("fake/{id}#main")].links.get("managerId");
        let target = entries[&format!("fake/{of}#main")].target_id.as_ref();
        assert_eq!(link, target, "{id} → {of}");
    }
    let causes = rig.causes();
    let (code, message) = &causes["fake/contact/s#main"];
    assert_eq!(code, "REFERENCE_CYCLE");
    assert_eq!(message, "requires fake/contact/s#main");
    for id in ["p", "q", "r"] {
        let (code, message) = &causes[&format!("fake/contact/{id}#main")];
        assert_eq!(code, "REFERENCE_CYCLE", "{message}");
        for member in ["p", "q", "r"] {
            let member = format!("fake/contact/{member}#main");
            assert!(message.contains(&member), "{message}");
        }
    }

    // The circle is broken in the source, and all of it goes on.
    rig.source
        .add("contact", "r", 2, contact("r", &[("boss", "z")]));
    rig.until("the broken circle", |rig| {
        rig.rows().len() == 8 && rig.causes().len() == 1
    })
    .await;
    rig.end().await;
}

/// A person lets a child go on without the parent it requires: it is in the
/// target, goes on waiting for nothing but the link, also when the same version
/// comes again, and has the link when the parent comes after all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_let_go_without_its_parent_lacks_only_the_link() {
    for ordered in [true, false] {
        let mut rig = Rig::new(Target {
            ordered,
            ..Target::default()
        });
        let key = "fake/contact/c#main";
        let body = contact("c", &[("parent", "late"), ("manager", "boss")]);
        rig.source.add("contact", "c", 1, body.clone());
        rig.run();
        rig.until("it waits", |rig| rig.parked().contains_key(key))
            .await;
        let parked = rig.parked().remove(key).expect("it waits");
        assert!(matches!(parked.reason, Reason::Parent { .. }));

        let bytes = parked.envelope().expect("its record");
        let mut envelope = Envelope::decode(&bytes).expect("an envelope");
        envelope.order = Some(parked.order_without_links());
        rig.try_again(key, &envelope.encode());
        let waits_for_links = |rig: &Rig| {
            let parked = rig.parked().remove(key)?;
            match parked.reason {
                Reason::Link { parents } => Some((parents.len(), parked.order)),
                _ => None,
            }
        };
        rig.until("it is there", |rig| waits_for_links(rig).is_some())
            .await;
        let (links, order) = waits_for_links(&rig).expect("just seen");
        assert_eq!((links, rig.rows()[key].links.len()), (2, 0));

        // One of its links comes, while the required one still does not.
        rig.source.add("contact", "boss", 1, name("boss"));
        rig.source.add("company", "other", 1, name("other"));
        let boss = contact("boss", &[("parent", "other")]);
        rig.source.add("contact", "boss", 2, boss);
        rig.until("one link", |rig| rig.rows()[key].links.len() == 1)
            .await;
        assert_eq!(waits_for_links(&rig).map(|(links, _)| links), Some(1));

        // The same version comes again, as after a lookback.
        rig.source.add("contact", "c", 1, body);
        rig.until("the same again", |rig| {
            waits_for_links(rig).is_some_and(|(_, again)| again.offset > order.offset)
        })
        .await;
        rig.source.add("company", "late", 2, name("late"));
        rig.until("both links", |rig| {
            rig.rows()[key].links.len() == 2 && rig.parked().is_empty()
        })
        .await;
        let creates = rig.target.creates.load(Ordering::SeqCst);
        assert_eq!((creates, rig.rows().len()), (4, 4), "no doubles");
        rig.end().await;
    }
}

/// However many wait, each is parked once and released once, and finds its
/// parent: nothing grows with what waits beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_children_before_their_parents_are_all_linked() {
    const PARENTS: usize = 1_000;
    const CHILDREN: usize = 100_000;
    let target = Target {
        ordered: true,
        batch: Some(2_000),
        ..Target::default()
    };
    // Read without a copy of them all, as often as is asked.
    let rows = Arc::clone(&target.rows);
    let Some(mut rig) = Rig::real(target) else {
        return;
    };
    rig.source.page = Some(2_000);
    rig.patience = Duration::from_secs(300);
    rig.run();
    for n in 0..CHILDREN {
        let parent = (n % PARENTS).to_string();
        let body = contact(&format!("contact {n}"), &[("parent", &parent)]);
        rig.source.add("contact", &n.to_string(), 1, body);
    }
    rig.until("all wait", |rig| {
        rig.counts("contact").parked == CHILDREN as u64
    })
    .await;
    for n in 0..PARENTS {
        let company = name(&format!("company {n}"));
        rig.source.add("company", &n.to_string(), 1, company);
    }
    rig.until("all", |_| {
        rows.lock().expect("lock").len() == PARENTS + CHILDREN
    })
    .await;
    rig.until("nobody waits", |rig| rig.parked().is_empty())
        .await;
    let (rows, entries) = (rig.rows(), rig.entries());
    for n in 0..CHILDREN {
        let child = &rows[&format!("fake/contact/{n}#main")];
        let parent = &entries[&format!("fake/company/{}#main", n % PARENTS)];
        let link = child.links.get("companyId");
        assert_eq!(link, parent.target_id.as_ref(), "{n}");
    }
    let mut written = 0;
    let topic = rig.topics.parked();
    scan(&rig.client(), &topic, |_, _, _, _| written += 1).expect("the topic");
    assert_eq!(written, 2 * CHILDREN, "parked once, released once");
    rig.end().await;
}
