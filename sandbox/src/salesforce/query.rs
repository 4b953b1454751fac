//! `/query`, `/queryAll` and `/query/{locator}`.
//!
//! Which records a query finds is fixed when it starts; a page shows them as
//! they stand when it is served. A record deleted meanwhile is left out of
//! its page (unless the query sees the bin), so a page may be shorter.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::aggregate;
use super::errors::ApiError;
use super::id::Id;
use super::plan::{Output, Plan};
use super::print::Printer;
use super::run;
use super::soql;
use super::store::Store;

/// Cursors that are kept; the oldest go first.
const CURSORS: usize = 500;

/// A page ends early when its text gets longer than this, as real pages of
/// wide rows do.
const LONGEST_PAGE: usize = 8 << 20;

/// A query that was not read to its end.
#[derive(Debug)]
struct Cursor {
    plan: Plan,
    ids: Vec<Id>,
    deleted: bool,
}

/// The open cursors.
#[derive(Debug, Default)]
pub struct Cursors {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_id: HashMap<Id, Arc<Cursor>>,
    age: VecDeque<Id>,
    made: u64,
}

/// What a query answer depends on besides the query.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `/services/data/v59.0`
    pub base: &'a str,
    /// Rows of a page.
    pub batch: usize,
}

impl Cursors {
    /// Forgets all cursors: every locator is invalid from now on.
    pub fn clear(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.by_id.clear();
        open.age.clear();
    }

    fn keep(&self, cursor: Arc<Cursor>) -> Id {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.made += 1;
        // Scattered, so that nobody takes locators for numbers.
        let id = Id::numbered(
            "0r8",
            open.made.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 62_u64.pow(9),
        );
        open.by_id.insert(id, cursor);
        open.age.push_back(id);
        if open.age.len() > CURSORS
            && let Some(oldest) = open.age.pop_front()
        {
            open.by_id.remove(&oldest);
        }
        id
    }

    fn get(&self, id: Id) -> Option<Arc<Cursor>> {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .by_id
            .get(&id)
            .cloned()
    }

    /// Answers a query with its first page.
    pub fn start(
        &self,
        store: &Store,
        text: &str,
        deleted: bool,
        request: Request<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let query = soql::parse(text)?;
        let plan = Plan::compile(&store.schema, &query, text)?;
        match &plan.output {
            Output::Count => {
                let count = run::ids(store, &plan, deleted).len();
                Ok(format!("{{\"totalSize\":{count},\"done\":true,\"records\":[]}}").into_bytes())
            }
            Output::Groups {
                keys,
                columns,
                having,
                order,
            } => {
                let mut all = plan.clone();
                (all.limit, all.offset) = (None, 0);
                let ids = run::ids(store, &all, deleted);
                let wanted = (having, order.as_slice());
                let mut lines = aggregate::lines(store, &plan, keys, columns, wanted, &ids);
                lines.drain(..lines.len().min(plan.offset as usize));
                if let Some(limit) = plan.limit {
                    lines.truncate(limit as usize);
                }
                let records = lines.join(",");
                Ok(format!(
                    "{{\"totalSize\":{},\"done\":true,\"records\":[{records}]}}",
                    lines.len()
                )
                .into_bytes())
            }
            Output::Rows(_) => {
                let ids = run::ids(store, &plan, deleted);
                let cursor = Cursor { plan, ids, deleted };
                Ok(self.page(store, Arc::new(cursor), None, 0, request))
            }
        }
    }

    /// Answers a locator with its page.
    pub fn resume(
        &self,
        store: &Store,
        locator: &str,
        request: Request<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let invalid = || ApiError::bad("INVALID_QUERY_LOCATOR", "invalid query locator");
        let (id, from) = locator.split_once('-').ok_or_else(invalid)?;
        let id = Id::parse(id).ok_or_else(invalid)?;
        let from: usize = from.parse().map_err(|_| invalid())?;
        let cursor = self
            .get(id)
            .filter(|cursor| from < cursor.ids.len())
            .ok_or_else(invalid)?;
        Ok(self.page(store, cursor, Some(id), from, request))
    }

    fn page(
        &self,
        store: &Store,
        cursor: Arc<Cursor>,
        id: Option<Id>,
        from: usize,
        request: Request<'_>,
    ) -> Vec<u8> {
        let total = cursor.ids.len();
        let ids = &cursor.ids[from..total.min(from + request.batch)];
        let mut records = Vec::with_capacity(ids.len() * 512);
        let printer = Printer::new(store, request.base, cursor.deleted);
        let used = printer.records(&cursor.plan, ids, &mut records, |out| {
            out.len() > LONGEST_PAGE
        });
        let next = from + used;
        let mut out = Vec::with_capacity(records.len() + 200);
        if next < total {
            let id = id.unwrap_or_else(|| self.keep(cursor.clone()));
            let head = format!(
                "{{\"totalSize\":{total},\"done\":false,\"nextRecordsUrl\":\"{}/query/{id}-{next}\",\"records\":[",
                request.base
            );
            out.extend_from_slice(head.as_bytes());
        } else {
            out.extend_from_slice(
                format!("{{\"totalSize\":{total},\"done\":true,\"records\":[").as_bytes(),
            );
        }
        out.extend_from_slice(&records);
        out.extend_from_slice(b"]}");
        out
    }
}
