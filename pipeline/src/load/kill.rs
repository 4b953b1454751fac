//! The steps of the loader's runner, at each of which a test can kill it.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

/// The steps of a batch, in their order. A test can end the process with
/// SIGKILL behind each of them (`DROVER_KILL_AT=<step>[:<n>]`), so this list is
/// also the list of the places at which a crash is proved to be harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Partitions were assigned; nothing is restored yet.
    Assigned,
    /// The tables of the assigned partitions stand at the high watermark.
    Restored,
    /// A batch was taken from its lane.
    Taken,
    /// Every record has its verdict, and references are resolved.
    Judged,
    /// The Pending entries are produced, but not committed.
    PendingProduced,
    /// The Pending entries are durable.
    PendingCommitted,
    /// The target has answered.
    Applied,
    /// Outcomes, parked records and dead letters are produced, but not committed.
    OutcomeProduced,
    /// The offsets are in the transaction too.
    OffsetsSent,
    /// All of it is durable; memory does not know it yet.
    OutcomeCommitted,
    /// Memory has it, and parked records were looked at again.
    LookedAgain,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Step; 11] = [
        Step::Assigned,
        Step::Restored,
        Step::Taken,
        Step::Judged,
        Step::PendingProduced,
        Step::PendingCommitted,
        Step::Applied,
        Step::OutcomeProduced,
        Step::OffsetsSent,
        Step::OutcomeCommitted,
        Step::LookedAgain,
    ];
}

/// Where a test wants this process to die: `DROVER_KILL_AT=<step>[:<n>]`, at the
/// n-th time the step is reached.
static KILL_AT: LazyLock<Option<(Step, u32)>> = LazyLock::new(|| {
    let text = std::env::var("DROVER_KILL_AT").ok()?;
    let (step, count) = text.split_once(':').unwrap_or((&text, "1"));
    let step = serde_json::from_value(serde_json::Value::String(step.to_owned())).ok()?;
    Some((step, count.parse().ok()?))
});

static REACHED: AtomicU32 = AtomicU32::new(0);

/// Ends the process with SIGKILL when a test asked for it here.
pub(super) fn kill_point(step: Step) {
    let Some((wanted, count)) = &*KILL_AT else {
        return;
    };
    if *wanted == step && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *count {
        eprintln!("kill point {step:?} reached");
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::SIGKILL);
    }
}
