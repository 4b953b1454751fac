//! Prints records as queries answer them: `attributes` first, then the
//! fields in the order of the SELECT list.

use std::collections::{HashMap, HashSet};

use super::id::Id;
use super::plan::{Column, Output, Plan};
use super::reach::{parent, push_common};
use super::record::Record;
use super::run;
use super::store::Store;
use super::value;

/// Prints records of one plan.
pub struct Printer<'a> {
    store: &'a Store,
    /// `/services/data/v59.0`
    base: &'a str,
    /// Whether records in the bin are seen.
    deleted: bool,
}

/// For each query of children: which children a record has.
type Family = HashMap<usize, HashMap<Id, Vec<Id>>>;

impl<'a> Printer<'a> {
    /// A printer for answers below `base`.
    pub fn new(store: &'a Store, base: &'a str, deleted: bool) -> Printer<'a> {
        Printer {
            store,
            base,
            deleted,
        }
    }

    /// Appends the records as members of a JSON array until `full` says that
    /// the text is long enough; how many ids were used up.
    pub fn records(
        &self,
        plan: &Plan,
        ids: &[Id],
        out: &mut Vec<u8>,
        full: impl Fn(&Vec<u8>) -> bool,
    ) -> usize {
        let Output::Rows(columns) = &plan.output else {
            return 0;
        };
        let family = self.family(columns, ids);
        let mut found: Vec<Option<&str>> = Vec::new();
        let mut first = true;
        for (at, id) in ids.iter().enumerate() {
            if at > 0 && full(out) {
                return at;
            }
            // A record that went meanwhile is left out.
            let Some(record) = self
                .store
                .table(plan.object)
                .row(*id)
                .filter(|r| self.deleted || !r.deleted)
            else {
                continue;
            };
            if !first {
                out.push(b',');
            }
            first = false;
            self.record(plan.object, record, columns, &family, &mut found, out);
        }
        ids.len()
    }

    fn record(
        &self,
        object: usize,
        record: &'a Record,
        columns: &[Column],
        family: &Family,
        found: &mut Vec<Option<&'a str>>,
        out: &mut Vec<u8>,
    ) {
        let described = &self.store.schema.objects[object];
        found.clear();
        found.resize(described.fields.len(), None);
        for (field, json) in record.entries() {
            if let Some(found) = found.get_mut(usize::from(field)) {
                *found = Some(json);
            }
        }
        self.attributes(&described.name, object, record.id, out);
        for (at, column) in columns.iter().enumerate() {
            match column {
                Column::Own { name, field } => {
                    key(name, out);
                    value::push_found(record, described, *field, out, |field| {
                        found[usize::from(field)]
                    });
                }
                Column::Children { name, plan, .. } => {
                    key(name, out);
                    self.children(plan, family.get(&at).and_then(|of| of.get(&record.id)), out);
                }
                other => self.far(object, record, other, out),
            }
        }
        out.push(b'}');
    }

    /// A member that is found outside the record's own fields.
    fn far(&self, object: usize, record: &Record, column: &Column, out: &mut Vec<u8>) {
        match column {
            Column::Blob { name } => {
                key(name, out);
                out.push(b'"');
                self.address(object, record.id, out);
                out.push(b'/');
                out.extend_from_slice(name.as_bytes());
                out.push(b'"');
            }
            Column::Formula { name, reach } => {
                key(name, out);
                reach.push_json(self.store, record, out);
            }
            Column::Common { name } => {
                key(name, out);
                push_common(self.store, record, name, out);
            }
            Column::Parent {
                name,
                step,
                many,
                columns,
            } => {
                key(name, out);
                let Some((object, Some(found))) = parent(self.store, record, step.field) else {
                    out.extend_from_slice(b"null");
                    return;
                };
                let described = &self.store.schema.objects[object];
                let kind = if *many { "Name" } else { &described.name };
                self.attributes(kind, object, found.id, out);
                for column in columns {
                    match column {
                        Column::Own { name, field } => {
                            key(name, out);
                            value::push_json(found, described, *field, out);
                        }
                        other => self.far(object, found, other, out),
                    }
                }
                out.push(b'}');
            }
            Column::TypeOf {
                name,
                step,
                when,
                otherwise,
            } => {
                key(name, out);
                let Some((object, Some(found))) = parent(self.store, record, step.field) else {
                    out.extend_from_slice(b"null");
                    return;
                };
                let described = &self.store.schema.objects[object];
                self.attributes(&described.name, object, found.id, out);
                let columns = when
                    .iter()
                    .find(|branch| branch.0 == object)
                    .map_or(otherwise, |branch| &branch.1);
                for column in columns {
                    match column {
                        Column::Own { name, field } => {
                            key(name, out);
                            value::push_json(found, described, *field, out);
                        }
                        other => self.far(object, found, other, out),
                    }
                }
                out.push(b'}');
            }
            Column::Own { .. } | Column::Children { .. } => {}
        }
    }

    fn attributes(&self, kind: &str, object: usize, id: Id, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"attributes\":{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"url\":\"");
        self.address(object, id, out);
        out.extend_from_slice(b"\"}");
    }

    /// The address of a record.
    fn address(&self, object: usize, id: Id, out: &mut Vec<u8>) {
        out.extend_from_slice(self.base.as_bytes());
        out.extend_from_slice(b"/sobjects/");
        out.extend_from_slice(self.store.schema.objects[object].name.as_bytes());
        out.push(b'/');
        id.push_to(out);
    }

    fn children(&self, plan: &Plan, ids: Option<&Vec<Id>>, out: &mut Vec<u8>) {
        let Some(ids) = ids else {
            out.extend_from_slice(b"null");
            return;
        };
        let start = format!("{{\"totalSize\":{},\"done\":true,\"records\":[", ids.len());
        out.extend_from_slice(start.as_bytes());
        self.records(plan, ids, out, |_| false);
        out.extend_from_slice(b"]}");
    }

    /// The children of the records of one page, by one pass over each object.
    fn family(&self, columns: &[Column], ids: &[Id]) -> Family {
        let mut family = Family::new();
        for (at, column) in columns.iter().enumerate() {
            let Column::Children { by, plan, .. } = column else {
                continue;
            };
            let wanted: HashSet<Id> = ids.iter().copied().collect();
            let mut all = (**plan).clone();
            all.limit = None;
            all.offset = 0;
            let mut of: HashMap<Id, Vec<Id>> = HashMap::new();
            let most = plan.limit.map_or(usize::MAX, |limit| limit as usize);
            let table = self.store.table(plan.object);
            for child in run::ids(self.store, &all, self.deleted) {
                let Some(parent) = table.row(child).and_then(|record| record.reference(*by)) else {
                    continue;
                };
                if wanted.contains(&parent) {
                    let children = of.entry(parent).or_default();
                    if children.len() < most {
                        children.push(child);
                    }
                }
            }
            family.insert(at, of);
        }
        family
    }
}

fn key(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}
