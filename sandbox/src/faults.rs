//! Faults: what goes wrong on demand, and on which requests.

use std::sync::{Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exchange::{Call, decode};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The vendor's answer to too many requests.
    RateLimit,
    /// The vendor's answer when the service is down.
    ServerError,
    /// The connection is closed before the request has any effect.
    CutBefore,
    /// The request has its effect, then the connection is closed in the
    /// middle of the answer.
    CutAfter,
    /// The answer's body comes in small pieces.
    Slow,
    /// The token of the request is expired from then on.
    ExpiredToken,
    /// A page for people, with status 503.
    HtmlPage,
    /// Status 200 and a body that is no JSON.
    NotJson,
    /// The answer's body ends early, though its length says it is whole.
    Truncated,
    /// The token is good, but not for this any more.
    LostScope,
    /// The job that the request makes or is about will fail.
    JobFailed,
    /// The same, as if somebody had aborted it.
    JobAborted,
}

/// A fault as it was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// Only requests whose path (with query string) begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Only requests whose decoded path or query string, or whose body, has
    /// this in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// Only requests of this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// At most so often; once if nothing is said, without limit beside a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Each such request with this probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// From the n-th such request on, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// The header that tells clients when to come back, where the vendor
    /// sends one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

impl Fault {
    fn matches(&self, call: &Call) -> bool {
        let whole = if call.query.is_empty() {
            call.path.clone()
        } else {
            format!("{}?{}", call.path, call.query)
        };
        self.path
            .as_ref()
            .is_none_or(|path| whole.starts_with(path.as_str()))
            && self
                .method
                .as_ref()
                .is_none_or(|method| call.method.as_str().eq_ignore_ascii_case(method))
            && self.contains.as_ref().is_none_or(|part| {
                decode(&whole, true).contains(part.as_str()) || has(&call.body, part)
            })
    }

    fn most(&self) -> Option<u64> {
        match (self.times, self.share) {
            (Some(times), _) => Some(times),
            (None, Some(_)) => None,
            (None, None) => Some(1),
        }
    }
}

/// Whether a body has a text in it; only the beginning of large ones counts.
fn has(body: &[u8], part: &str) -> bool {
    const LOOKED_AT: usize = 64 << 10;
    let body = &body[..body.len().min(LOOKED_AT)];
    body.windows(part.len().max(1))
        .any(|window| window == part.as_bytes())
}

#[derive(Debug)]
struct Active {
    fault: Fault,
    seen: u64,
    fired: u64,
}

/// The faults of one system.
#[derive(Debug)]
pub struct Faults {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    active: Vec<Active>,
    rng: StdRng,
}

impl Faults {
    /// None yet; the seed decides which requests a share hits.
    pub fn new(seed: u64) -> Faults {
        let rng = StdRng::seed_from_u64(seed ^ 0xFA17);
        Faults {
            inner: Mutex::new(Inner {
                active: Vec::new(),
                rng,
            }),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds faults: one, or a list of them.
    pub fn add(&self, request: &Value) -> Result<(), String> {
        let faults: Vec<Fault> = match request {
            Value::Array(_) => serde_json::from_value(request.clone()),
            _ => serde_json::from_value(request.clone()).map(|fault| vec![fault]),
        }
        .map_err(|error| error.to_string())?;
        for fault in faults {
            if fault
                .share
                .is_some_and(|share| !(0.0..=1.0).contains(&share))
            {
                return Err("`share` is not between 0 and 1".to_owned());
            }
            if fault.at == Some(0) {
                return Err("`at` counts from 1".to_owned());
            }
            self.inner().active.push(Active {
                fault,
                seen: 0,
                fired: 0,
            });
        }
        Ok(())
    }

    /// The faults, and how often each of them fired.
    pub fn list(&self) -> Value {
        self.inner()
            .active
            .iter()
            .map(|active| {
                let mut entry = serde_json::to_value(&active.fault).unwrap_or_default();
                entry["seen"] = Value::from(active.seen);
                entry["fired"] = Value::from(active.fired);
                entry
            })
            .collect()
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.inner().active.clear();
    }

    /// The fault that hits a request. Every matching fault counts the
    /// request; the first one that is due fires.
    pub fn hit(&self, call: &Call) -> Option<Fault> {
        let mut inner = self.inner();
        let Inner { active, rng } = &mut *inner;
        let mut hit = None;
        for active in active
            .iter_mut()
            .filter(|active| active.fault.matches(call))
        {
            active.seen += 1;
            let due = active.fault.at.is_none_or(|at| active.seen >= at)
                && active.fault.most().is_none_or(|most| active.fired < most);
            let chosen = active
                .fault
                .share
                .is_none_or(|share| rng.random_bool(share));
            if hit.is_none() && due && chosen {
                active.fired += 1;
                hit = Some(active.fault.clone());
            }
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use axum::http::{HeaderMap, Method};
    use serde_json::json;

    fn call(path: &str) -> Call {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Call {
            method: Method::GET,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    fn hits(fault: Value, paths: &[&str]) -> Vec<bool> {
        let faults = Faults::new(1);
        faults.add(&fault).unwrap();
        paths
            .iter()
            .map(|path| faults.hit(&call(path)).is_some())
            .collect()
    }

    #[test]
    fn faults_hit_what_they_name() {
        let paths = ["/a/x", "/b", "/a/y", "/a/z?q=SELECT+Id+FROM+Lead"];
        assert_eq!(
            hits(json!({"kind": "slow"}), &paths),
            [true, false, false, false]
        );
        assert_eq!(
            hits(json!({"kind": "slow", "path": "/a", "times": 2}), &paths),
            [true, false, true, false]
        );
        assert_eq!(
            hits(json!({"kind": "slow", "path": "/a", "at": 2}), &paths),
            [false, false, true, false]
        );
        assert_eq!(
            hits(json!({"kind": "slow", "at": 2, "times": 9}), &paths),
            [false, true, true, true]
        );
        assert_eq!(
            hits(json!({"kind": "slow", "contains": "FROM Lead"}), &paths),
            [false, false, false, true]
        );
        assert_eq!(
            hits(json!({"kind": "slow", "method": "post"}), &paths),
            [false; 4]
        );
        assert_eq!(
            hits(json!({"kind": "slow", "share": 1.0}), &paths),
            [true; 4]
        );
        assert_eq!(
            hits(json!({"kind": "slow", "share": 0.0}), &paths),
            [false; 4]
        );
    }

    #[test]
    fn a_share_is_a_share_and_the_same_for_a_seed() {
        let paths = vec!["/a"; 2_000];
        let fault = json!({"kind": "server_error", "share": 0.1});
        let first = hits(fault.clone(), &paths);
        let count = first.iter().filter(|hit| **hit).count();
        assert!((140..260).contains(&count), "{count}");
        assert_eq!(first, hits(fault, &paths));
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        let faults = Faults::new(1);
        for bad in [
            json!({"kind": "fire"}),
            json!({"kind": "slow", "tiems": 1}),
            json!({"kind": "slow", "share": 2}),
            json!({}),
        ] {
            assert!(faults.add(&bad).is_err(), "{bad}");
        }
        assert_eq!(faults.list(), json!([]));
        faults
            .add(&json!([{"kind": "slow"}, {"kind": "cut_before"}]))
            .unwrap();
        assert_eq!(
            faults.list()[1],
            json!({"kind": "cut_before", "seen": 0, "fired": 0})
        );
    }
}
