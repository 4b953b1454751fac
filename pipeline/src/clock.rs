//! The wall clock. Every time that Drover writes down is read here and nowhere
//! else. It says when something was, for people and for the order of reports;
//! how long something takes or lasts is measured by the monotonic clock, since
//! this one jumps, and differs between machines.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::record::Millis;

/// Names a folder in which a test says how far off the clocks are: a file for
/// each process, called by its instance, holding milliseconds. Where the
/// variable is not set, nothing is read.
pub const SHIFTS: &str = "DROVER_CLOCK_SHIFTS";

/// How often it is looked whether the clock has jumped.
const LOOK: Duration = Duration::from_millis(100);

/// By how many milliseconds the clock of this process is off.
static SHIFT: AtomicI64 = AtomicI64::new(0);

/// Now, by the wall clock, in milliseconds.
pub fn now() -> Millis {
    chrono::Utc::now().timestamp_millis() + SHIFT.load(Ordering::Relaxed)
}

/// Lets the clock of this process jump as the folder [`SHIFTS`] says, from now on
/// and until its end.
pub fn jump_as_told(instance: &str) {
    let Some(folder) = std::env::var_os(SHIFTS) else {
        return;
    };
    let file = PathBuf::from(folder).join(instance);
    let look = move || {
        let told = std::fs::read_to_string(&file).ok();
        let shift = told.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if SHIFT.swap(shift, Ordering::Relaxed) != shift {
            tracing::warn!(shift, "a test has set the clock, in milliseconds");
        }
    };
    look();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            look();
        }
    });
}
