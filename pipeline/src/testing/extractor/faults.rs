//! What every extractor gets over: each fault, at each request.

use super::{Fault, Reader, Setup, Source, Write, expected, object};
use crate::error::Class;
use crate::extract::{Extractor, Reached};

/// The fault strikes the first, the second, the n-th request of a small run;
/// the error says what it is, the run goes on from its cursor, and nothing is
/// lost. A slow answer costs time, so it strikes only the first few.
pub async fn at_every_request<S: Source>(fault: Fault) {
    let setup = Setup {
        records: S::PAGE * 2 + 1,
        late: false,
    };
    let source = S::start(setup).await;
    let name = S::OBJECTS[0];
    let object = object(&source.extractor(), name).await;
    let ids: Vec<String> = source.truth(name).await.into_keys().collect();

    // One run; meanwhile a record is edited, so that the changes have something
    // to bring. Each run has a record of its own.
    let run = |extractor: S::Extractor, at: u64| {
        let (source, object) = (&source, object.clone());
        let edited = &ids[ids.len() - 1 - at as usize % S::PAGE];
        async move {
            let mut reader = Reader::new(object);
            let mut errors = Vec::new();
            let mut wrote = false;
            for _ in 0..10_000 {
                match reader.step(&extractor).await {
                    Ok(Reached::Now { .. }) => return (reader, errors),
                    Ok(_) => {}
                    Err(error) => errors.push(error),
                }
                if reader.snapshot_pages == 1 && !wrote {
                    wrote = true;
                    let name = &reader.object().name;
                    source.write(name, Write::Edit(edited)).await;
                }
            }
            panic!("no end after 10,000 pages")
        }
    };
    // A run without a fault says how many requests there are.
    let before = source.requests().await;
    run(source.extractor(), 0).await;
    let requests = source.requests().await - before;

    let most = if fault == Fault::Slow {
        requests.min(3)
    } else {
        requests
    };
    let mut runs = Vec::new();
    for at in 1..=most {
        source.fault(fault, at, 1).await;
        let (reader, errors) = run(source.extractor(), at).await;
        let context = format!("{fault:?} at request {at} of {requests}");
        let codes: Vec<_> = errors.iter().map(|error| error.code).collect();
        if expected(fault).is_empty() {
            assert!(codes.is_empty(), "{context}: {codes:?}");
        } else {
            assert_eq!(codes.len(), 1, "{context}: {codes:?}");
            assert!(expected(fault).contains(&codes[0]), "{context}: {codes:?}");
        }
        runs.push((reader, context));
    }
    source.settle().await;
    let truth = source.truth(name).await;
    let extractor = source.extractor();
    for (mut reader, context) in runs {
        reader.catch_up(&extractor).await;
        reader.compare(&truth, &context);
    }
}

/// A token that is refused even when it is new asks for a person; the lane goes
/// on from where it stood.
pub async fn token_refused_again<S: Source>() {
    let source = S::start(Setup {
        records: S::PAGE * 2 + 1,
        late: false,
    })
    .await;
    let name = S::OBJECTS[0];
    let extractor = source.extractor();
    let mut reader = Reader::new(object(&extractor, name).await);
    reader.step(&extractor).await.expect("a page");
    source.fault(Fault::ExpiredToken, 1, 1_000).await;
    let error = match extractor
        .fetch(reader.object(), reader.cursor.as_ref())
        .await
    {
        Ok(_) => panic!("a page with a token that is refused"),
        Err(error) => error,
    };
    assert_eq!(error.class(), Class::Operator, "{error}");
    source.fault(Fault::ExpiredToken, 1, 0).await;
    reader.catch_up(&extractor).await;
    reader.compare(&source.truth(name).await, "after a refused token");
}
