//! Asks the source how it describes itself, every now and then and whenever a
//! lane was refused a field or its object, and hands the answer to the lanes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::{Discovery, Extractor};
use crate::process::Context;
use crate::retry::Backoff;

/// How soon the first look comes: what changed while nobody looked is known
/// before a run ends, and a process that is often started anew looks at all.
const FIRST: Duration = Duration::from_secs(5);

/// What a lane needs of the looks.
#[derive(Clone)]
pub(super) struct Looks {
    /// What the source said last; nothing before the first look.
    pub found: watch::Receiver<Option<Arc<Discovery>>>,
    /// Asks for a look now.
    pub now: Arc<Notify>,
}

/// Looks until the process is told to stop. A look that fails is tried again,
/// with a back-off; the lanes go on with what they know.
pub(super) async fn look<E: Extractor>(
    extractor: Arc<E>,
    context: Arc<Context>,
    tell: watch::Sender<Option<Arc<Discovery>>>,
    now: Arc<Notify>,
) {
    let planned = &context.plan.objects;
    let named: Vec<String> = planned.iter().map(|object| object.name.clone()).collect();
    let mut backoff = Backoff::default();
    let mut wait = context.config.drift.every.min(FIRST);
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = now.notified() => {}
            () = context.stop.cancelled() => return,
        }
        let found = tokio::select! {
            found = extractor.discover(&named) => found,
            () = context.stop.cancelled() => return,
        };
        match found {
            Ok(found) => {
                backoff.reset();
                wait = context.config.drift.every;
                let new = found.objects.iter().filter(|o| !named.contains(&o.name));
                for object in new.filter(|o| o.custom && context.config.objects.is_empty()) {
                    let remark = "the source has a new object (not migrated)";
                    context
                        .status
                        .remark(format!("{}: {remark}", object.name), 1);
                }
                tell.send_replace(Some(Arc::new(found)));
            }
            Err(error) => {
                wait = backoff.after(&error);
                tracing::warn!(%error, ?wait, "the source does not describe itself");
                context.status.note_error(&error);
            }
        }
    }
}
