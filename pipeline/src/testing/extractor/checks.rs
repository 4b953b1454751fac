//! What every extractor keeps while the source goes on living.

use std::collections::{BTreeMap, BTreeSet};

use super::{Reader, Setup, Source, Write, object, through_json};
use crate::error::Class;
use crate::extract::{Extractor, Reached};
use crate::record::Op;

/// Enough records for more than five pages, the last one not full.
fn enough<S: Source>() -> usize {
    S::PAGE * 5 + S::PAGE / 2
}

async fn start<S: Source>(late: bool) -> S {
    S::start(Setup {
        records: enough::<S>(),
        late,
    })
    .await
}

/// Writes and panics where the stand-in can't.
async fn must<S: Source>(source: &S, object: &str, what: Write<'_>) -> String {
    source
        .write(object, what)
        .await
        .unwrap_or_else(|| panic!("the stand-in refuses {what:?} of {object}"))
}

/// A reader for each tested object, at its beginning.
async fn readers<S: Source>(extractor: &S::Extractor) -> Vec<Reader<S::Extractor>> {
    let mut readers = Vec::new();
    for name in S::OBJECTS {
        readers.push(Reader::new(object(extractor, name).await));
    }
    readers
}

/// Lets every lane read to the end and compares it with the truth.
async fn all_arrive<S: Source>(
    source: &S,
    extractor: &S::Extractor,
    readers: &mut [Reader<S::Extractor>],
    context: &str,
) {
    for reader in readers {
        reader.catch_up(extractor).await;
        let truth = source.truth(&reader.object().name).await;
        reader.compare(&truth, context);
    }
}

/// Every record of every object comes once, in five pages or more, as it is.
pub async fn every_record_once<S: Source>() {
    let source: S = start(false).await;
    let extractor = source.extractor();
    extractor.check().await.expect("check");
    for name in S::OBJECTS {
        let truth = source.truth(name).await;
        let mut reader = Reader::new(object(&extractor, name).await);
        let mut came = BTreeSet::new();
        while !reader.complete {
            reader.step(&extractor).await.expect("a page");
            for change in &reader.page {
                assert!(came.insert(change.id.clone()), "{name} {} twice", change.id);
                assert_eq!(change.op, Op::Upsert, "{name} {}", change.id);
            }
        }
        assert!(
            reader.snapshot_pages >= 5,
            "{name}: {} pages are too few to prove anything",
            reader.snapshot_pages
        );
        let live = truth.values().filter(|record| record.is_some()).count();
        assert_eq!(came.len(), live, "{name}: records");
        reader.catch_up(&extractor).await;
        reader.compare(&truth, "after the first copy");
    }
}

/// From each page on, another process goes on as if nothing had happened, and
/// a page that is read twice says the same twice.
pub async fn every_page_is_a_restart_point<S: Source>() {
    let source: S = start(false).await;
    for name in S::OBJECTS {
        let first = source.extractor();
        let mut reader = Reader::new(object(&first, name).await);
        let mut stands = vec![(None, BTreeMap::new())];
        loop {
            let reached = reader.step(&first).await.expect("a page");
            stands.push((reader.cursor.clone(), reader.known.clone()));
            if matches!(reached, Reached::Now { .. }) {
                break;
            }
        }
        let truth = source.truth(name).await;
        for (at, (cursor, known)) in stands.into_iter().enumerate() {
            let again = source.extractor();
            let object = reader.object();
            let one = again.fetch(object, cursor.as_ref()).await.expect("a page");
            let two = again.fetch(object, cursor.as_ref()).await.expect("a page");
            assert_eq!(one.changes, two.changes, "{name}: page {at} read twice");
            let cursor = cursor.map(|cursor| through_json::<S::Extractor>(&cursor));
            let mut other = Reader::resume(object.clone(), cursor, known);
            other.catch_up(&again).await;
            other.compare(&truth, &format!("restarted behind page {at}"));
        }
    }
}

/// What is edited, created, deleted and brought back while the first copy is
/// made arrives at last, whether its page was read before or comes after.
pub async fn changes_during_the_first_copy<S: Source>() {
    let source: S = start(false).await;
    let extractor = source.extractor();
    let mut readers = readers::<S>(&extractor).await;
    for reader in &mut readers {
        let name = reader.object().name.clone();
        let ids: Vec<String> = source.truth(&name).await.into_keys().collect();
        let mut at = 0;
        while !reader.complete {
            reader.step(&extractor).await.expect("a page");
            // One record of every part of the object, read and unread.
            for offset in (0..ids.len()).step_by(S::PAGE) {
                let Some(id) = ids.get(offset + at / 3 % S::PAGE) else {
                    continue;
                };
                match (offset / S::PAGE + at) % 5 {
                    0 | 1 => source.write(&name, Write::Edit(id)).await,
                    2 => source.write(&name, Write::Delete(id)).await,
                    3 => source.write(&name, Write::Undelete(id)).await,
                    _ => source.write(&name, Write::Purge(id)).await,
                };
            }
            must(&source, &name, Write::Create).await;
            at += 1;
        }
    }
    source.settle().await;
    let context = "after a first copy with changes";
    all_arrive(&source, &extractor, &mut readers, context).await;
    // Two edits in one unit of the source's time: the second one counts.
    for reader in &mut readers {
        let name = reader.object().name.clone();
        let id = must(&source, &name, Write::Create).await;
        must(&source, &name, Write::Edit(&id)).await;
        reader.catch_up(&extractor).await;
        must(&source, &name, Write::Edit(&id)).await;
    }
    source.settle().await;
    all_arrive(&source, &extractor, &mut readers, "after two edits at once").await;
}

/// More records than a page holds bear the same stamp: a page's end lies among
/// them, and none is lost.
pub async fn equal_stamps_on_a_page_boundary<S: Source>() {
    let source: S = start(false).await;
    let extractor = source.extractor();
    let mut readers = readers::<S>(&extractor).await;
    for reader in &mut readers {
        reader.catch_up(&extractor).await;
        let name = &reader.object().name;
        for id in reader.known.keys().take(S::PAGE * 3 + 1) {
            must(&source, name, Write::Edit(id)).await;
        }
    }
    source.settle().await;
    all_arrive(&source, &extractor, &mut readers, "after edits at once").await;
}

/// What shows later than its stamp arrives, although the lane has read past
/// that stamp meanwhile.
pub async fn late_records<S: Source>() {
    let source: S = start(true).await;
    let extractor = source.extractor();
    let mut readers = readers::<S>(&extractor).await;
    for reader in &mut readers {
        let name = reader.object().name.clone();
        let ids: Vec<String> = source.truth(&name).await.into_keys().collect();
        // Late while the first copy is made, and late in the changes.
        must(&source, &name, Write::Create).await;
        for id in ids.iter().step_by(7) {
            source.write(&name, Write::Edit(id)).await;
            reader.step(&extractor).await.expect("a page");
        }
        reader.catch_up(&extractor).await;
        must(&source, &name, Write::Create).await;
        source.write(&name, Write::Delete(&ids[1])).await;
        reader.catch_up(&extractor).await;
        reader.catch_up(&extractor).await;
    }
    source.settle().await;
    all_arrive(&source, &extractor, &mut readers, "after late records").await;
}

/// The same version has the same bytes by the first copy, by changes and by id.
pub async fn same_record_same_bytes<S: Source>() {
    let source: S = start(false).await;
    let extractor = source.extractor();
    let mut readers = readers::<S>(&extractor).await;
    for reader in &mut readers {
        reader.catch_up(&extractor).await;
        let name = &reader.object().name;
        let ids: Vec<&String> = reader.known.keys().collect();
        for id in ids.iter().step_by(3) {
            source.write(name, Write::Edit(id)).await;
        }
        source.write(name, Write::Delete(ids[1])).await;
    }
    source.settle().await;
    for reader in &mut readers {
        reader.catch_up(&extractor).await;
        let name = &reader.object().name;
        let ids: Vec<String> = reader.known.keys().cloned().collect();
        let mut copy = Reader::new(reader.object().clone());
        copy.catch_up(&extractor).await;
        let mut asked: Vec<&str> = ids.iter().map(String::as_str).collect();
        asked.push("no such id");
        let got = extractor.get(reader.object(), &asked).await.expect("get");
        assert_eq!(got.len(), asked.len(), "{name}: one answer for each id");
        for (id, change) in asked.iter().zip(got) {
            let known = reader.known.get(*id);
            match change {
                None => assert!(
                    known.is_none_or(|known| known.1.is_none()),
                    "{name} {id} is known, and not found by its id"
                ),
                Some(change) => {
                    assert_eq!(change.id, *id, "{name}: in the order of the ids");
                    let by_id = (change.version, change.body);
                    assert_eq!(Some(&by_id), known, "{name} {id} by id and by changes");
                    if by_id.1.is_some() {
                        let copied = copy.known.get(*id);
                        assert_eq!(Some(&by_id), copied, "{name} {id} by id and by copy");
                    }
                }
            }
        }
    }
}

/// `ids` gives each live record's id once.
pub async fn every_id<S: Source>() {
    let source: S = start(false).await;
    let extractor = source.extractor();
    for name in S::OBJECTS {
        let truth = source.truth(name).await;
        let gone = truth.keys().next().expect("a record");
        source.write(name, Write::Delete(gone)).await;
    }
    source.settle().await;
    for name in S::OBJECTS {
        let object = object(&extractor, name).await;
        let mut truth = source.truth(name).await;
        let mut ids = Vec::new();
        let mut page: Option<String> = None;
        loop {
            let read = extractor.ids(&object, page.as_deref()).await.expect("ids");
            ids.extend(read.ids);
            page = read.next;
            if page.is_none() {
                break;
            }
        }
        let count = ids.len();
        let ids: BTreeSet<String> = ids.into_iter().collect();
        assert_eq!(ids.len(), count, "{name}: an id came twice");
        truth.retain(|_, record| record.is_some());
        assert!(ids.iter().eq(truth.keys()), "{name}: ids differ");
    }
}

/// A lane that has nothing to do asks little and saves nothing.
pub async fn idle_is_quiet<S: Source>() {
    let source: S = start(false).await;
    let extractor = source.extractor();
    for name in S::OBJECTS {
        let mut reader = Reader::new(object(&extractor, name).await);
        reader.catch_up(&extractor).await;
        let mut as_of = reader.catch_up(&extractor).await;
        for _ in 0..3 {
            let before = source.requests().await;
            let cursor = reader.cursor.clone();
            let now = reader.catch_up(&extractor).await;
            assert!(now >= as_of, "{name}: time goes backwards");
            as_of = now;
            let asked = source.requests().await - before;
            assert!(asked <= S::IDLE, "{name}: {asked} requests of an idle poll");
            assert!(reader.page.is_empty(), "{name}: changes of an idle object");
            assert!(reader.cursor == cursor, "{name}: an idle cursor moves");
        }
    }
}

/// Wrong credentials ask for a person, and no page comes of them.
pub async fn wrong_credentials<S: Source>() {
    let source: S = start(false).await;
    let named = S::OBJECTS[0];
    let object = object(&source.extractor(), named).await;
    let intruder = source.intruder();
    let error = intruder.check().await.expect_err("wrong credentials");
    assert_eq!(error.class(), Class::Operator, "{error}");
    for cursor in [None, {
        let mut reader = Reader::<S::Extractor>::new(object.clone());
        reader.step(&source.extractor()).await.expect("a page");
        reader.cursor
    }] {
        match intruder.fetch(&object, cursor.as_ref()).await {
            Ok(_) => panic!("{named}: a page in spite of wrong credentials"),
            Err(error) => assert_eq!(error.class(), Class::Operator, "{error}"),
        }
    }
}
