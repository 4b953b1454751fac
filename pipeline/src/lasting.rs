//! A stage outlives its place in Kafka. A broker that is away for longer than a
//! transaction or a session may last throws out whoever was at work, and
//! librdkafka can't tell that from another process that took over: a producer
//! whose transaction timed out is "fenced", and so is a static member that
//! joins anew after its own session and meets its former self
//! (`FENCED_INSTANCE_ID`, seen with a broker that was killed). The stage is then
//! built anew inside the process, exactly as after a restart: the producer
//! (whose `init_transactions` settles what became of the last transaction), the
//! membership, and every table, from Kafka.

use std::time::{Duration, Instant};

use crate::error::{Class, Code, Error, Result};
use crate::kafka::compacted::scan;
use crate::process::Context;
use crate::retry::{Backoff, passes};
use crate::status::{Phase, Report};

/// A life of this length was well: the next loss is the first again.
const WELL: Duration = Duration::from_secs(60);

/// Lives `life` again after each loss of its place that passes, until it ends
/// otherwise or is told to stop. Each life has its own owner and a stop of its
/// own. A process whose name was taken by a younger one ends with
/// [`Code::Fenced`], so that two never throw each other out in turns.
pub async fn through_losses<F>(context: &Context, mut life: impl FnMut(Context) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let ended = life(Context {
            owner: format!("{:016x}", rand::random::<u64>()),
            stop: context.stop.child_token(),
            ..context.clone()
        })
        .await;
        let lost = match ended {
            Err(lost) if lost.class() == Class::Transient && !context.stop.is_cancelled() => lost,
            other => return other,
        };
        context.status.phase(Phase::Starting);
        context.status.note_error(&lost);
        if lost.code == Code::Fenced && is_replaced(context).await? {
            return Err(lost);
        }
        if began.elapsed() > WELL {
            backoff.reset();
        }
        let wait = backoff.after(&lost);
        tracing::warn!(error = %lost, ?wait, "its place in Kafka was lost; taking it again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = context.stop.cancelled() => return Ok(()),
        }
    }
}

/// Whether a process that started after this one reports under its name.
async fn is_replaced(context: &Context) -> Result<bool> {
    let mut backoff = Backoff::default();
    loop {
        let (client, topic) = (context.client.clone(), context.topics.status());
        let (instance, mine) = (context.instance.clone(), context.status.report().started_at);
        let found = tokio::task::spawn_blocking(move || {
            let mut younger = false;
            // Every report, not only the newest: ours lie between the other's.
            scan(&client, &topic, |_, _, key, value| {
                let report = value
                    .filter(|_| key == instance.as_bytes())
                    .and_then(|value| serde_json::from_slice::<Report>(value).ok());
                younger |= report.is_some_and(|report| report.started_at > mine);
            })?;
            Ok(younger)
        })
        .await
        .map_err(|e| Error::new(Code::Invariant, format!("reading reports: {e}")))?;
        match found {
            Err(error) if passes(&error) => {
                let wait = backoff.after(&error).min(Duration::from_secs(2));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    // The caller sees it too.
                    () = context.stop.cancelled() => return Ok(false),
                }
            }
            other => return other,
        }
    }
}
