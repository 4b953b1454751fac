//! The table of an entity: its columns, and the statements that use it. All
//! SQL that reads or writes rows stands here.

use drover_schemas::{Entity, Kind};

/// A column, as its definition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name, unquoted.
    pub(crate) name: String,
    /// Its type, as PostgreSQL's `format_type` prints it.
    pub(crate) kind: &'static str,
    /// What stands behind the type in a definition.
    pub(crate) rest: &'static str,
    /// Whether it can be added to a table that has rows already.
    pub(crate) addable: bool,
}

/// The columns of the unique key. The record's id comes first because it alone
/// tells nearly all rows apart: the index compares and stores less.
pub(crate) const KEY: [&str; 4] = ["drover_id", "drover_slot", "drover_object", "drover_source"];

/// The table of an entity.
#[derive(Debug)]
pub(crate) struct Table {
    /// The entity.
    pub(crate) entity: &'static Entity,
    /// Its columns, in their order.
    pub(crate) columns: Vec<Column>,
    /// Schema and name, quoted.
    pub(crate) name: String,
    /// The connection's own staging table, quoted.
    pub(crate) stage: String,
    /// Makes the staging table; it empties itself at the end of a transaction.
    pub(crate) create_stage: String,
    /// Fills the staging table.
    pub(crate) copy: String,
    /// Fills the staging table with rows whose ids are known.
    pub(crate) copy_known: String,
    /// Puts new rows straight into the table: id, what a staged row holds, and
    /// when it was created.
    pub(crate) copy_new: String,
    /// Moves what is staged into the table, guarded by order.
    pub(crate) upsert: String,
    /// Removes rows by id.
    pub(crate) take_back: String,
    /// Brings rows to what is staged under their ids, guarded by order.
    pub(crate) update: String,
    /// The sequence of the ids, where rows can be put straight into the table
    /// and updated by id: nobody stands in between who may alter or refuse them
    /// in silence.
    pub(crate) plain: String,
    /// Marks rows as deleted, guarded by order.
    pub(crate) delete: String,
    /// What stands under a list of keys.
    pub(crate) find: String,
    /// Rows by id, as JSON.
    pub(crate) read: String,
}

impl Table {
    /// The table of that entity in that schema.
    pub(crate) fn new(entity: &'static Entity, schema: &str) -> Self {
        let columns = columns(entity);
        let name = format!("{}.{}", quote(schema), quote(&entity.name));
        let stage = format!("pg_temp.{}", quote(&format!("drover_{}", entity.name)));
        // What a staged row holds: the fields, then key, version and order.
        let staged: Vec<&Column> = columns.iter().filter(|c| is_staged(&c.name)).collect();
        let names = list(&staged, |c| quote(&c.name));
        let changed = list(&staged, |c| {
            let column = quote(&c.name);
            format!("{column} = excluded.{column}")
        });
        let key = KEY.join(", ");
        let updated = staged
            .iter()
            .filter(|column| !KEY.contains(&column.name.as_str()))
            .map(|column| format!("{0} = s.{0}", quote(&column.name)))
            .collect::<Vec<_>>()
            .join(", ");
        let same = KEY.map(|column| format!("t.{column} = s.{column}"));
        Table {
            create_stage: format!(
                "CREATE TEMP TABLE IF NOT EXISTS {} (id bigint, {}) ON COMMIT DELETE ROWS",
                quote(&format!("drover_{}", entity.name)),
                list(&staged, |c| format!("{} {}", quote(&c.name), c.kind)),
            ),
            copy: format!("COPY {stage} ({names}) FROM STDIN"),
            copy_known: format!("COPY {stage} (id, {names}) FROM STDIN (FORMAT binary)"),
            copy_new: format!(
                "COPY {name} (id, {names}, drover_created) FROM STDIN (FORMAT binary)"
            ),
            update: format!(
                "UPDATE {name} AS t SET {updated}, drover_deleted_at = NULL FROM {stage} AS s \
                 WHERE t.id = s.id AND {} AND t.drover_order < s.drover_order",
                same.join(" AND "),
            ),
            plain: format!(
                "SELECT s.name FROM pg_class c, \
                 (SELECT pg_get_serial_sequence({0}, 'id') AS name) s \
                 WHERE c.oid = {0}::regclass AND has_sequence_privilege(s.name, 'USAGE') \
                 AND NOT c.relhasrules AND NOT c.relrowsecurity AND NOT EXISTS \
                 (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal)",
                literal(&name),
            ),
            // Whether the row is new: a row that came by INSERT has never been
            // locked or updated, so its xmax is 0.
            upsert: format!(
                "INSERT INTO {name} AS t ({names}, drover_created) \
                 SELECT {names}, now() FROM {stage} \
                 ON CONFLICT ({key}) DO UPDATE SET {changed}, drover_deleted_at = NULL \
                 WHERE t.drover_order < excluded.drover_order \
                 RETURNING t.id, t.xmax = 0, {}",
                KEY.map(|column| format!("t.{column}")).join(", "),
            ),
            take_back: format!("DELETE FROM {name} WHERE id = ANY($1::bigint[])"),
            delete: format!(
                "UPDATE {name} AS t SET drover_deleted_at = k.version::timestamptz, \
                 drover_version = k.version::timestamptz, drover_order = k.place::bigint[] \
                 FROM {KEYS_VERSIONED} \
                 WHERE {SAME_KEY} AND t.drover_order < k.place::bigint[] \
                 RETURNING t.id, k.n"
            ),
            find: format!(
                "SELECT k.n, t.id, t.drover_order FROM {KEYS} JOIN {name} AS t ON {SAME_KEY}"
            ),
            read: format!(
                "SELECT k.n, to_jsonb(t)::text \
                 FROM unnest($1::bigint[]) WITH ORDINALITY AS k(id, n) \
                 JOIN {name} AS t ON t.id = k.id"
            ),
            entity,
            columns,
            name,
            stage,
        }
    }

    /// Makes the table.
    pub(crate) fn create(&self) -> String {
        let all: Vec<&Column> = self.columns.iter().collect();
        format!(
            "CREATE TABLE {} ({}, UNIQUE ({}))",
            self.name,
            list(&all, Column::definition),
            KEY.join(", "),
        )
    }
}

impl Column {
    /// The column's line in CREATE TABLE, or behind ADD COLUMN.
    pub(crate) fn definition(&self) -> String {
        format!("{} {}{}", quote(&self.name), self.kind, self.rest)
    }
}

// The four parts of the key in the order of [`KEY`]; `n` counts from 1.
const KEYS: &str = "unnest($1::text[], $2::text[], $3::text[], $4::text[]) \
     WITH ORDINALITY AS k(id, slot, object, source, n)";
const KEYS_VERSIONED: &str = "unnest($1::text[], $2::text[], $3::text[], $4::text[], \
     $5::text[], $6::text[]) \
     WITH ORDINALITY AS k(id, slot, object, source, version, place, n)";
const SAME_KEY: &str = "t.drover_id = k.id AND t.drover_slot = k.slot \
     AND t.drover_object = k.object AND t.drover_source = k.source";

fn is_staged(name: &str) -> bool {
    !matches!(name, "id" | "drover_created" | "drover_deleted_at")
}

fn list(columns: &[&Column], show: impl Fn(&Column) -> String) -> String {
    columns
        .iter()
        .map(|column| show(column))
        .collect::<Vec<_>>()
        .join(", ")
}

fn columns(entity: &Entity) -> Vec<Column> {
    let column = |name: &str, kind, rest, addable| Column {
        name: name.to_owned(),
        kind,
        rest,
        addable,
    };
    let identity = " GENERATED ALWAYS AS IDENTITY PRIMARY KEY";
    // Compared byte by byte: faster, and the index outlives an upgrade of the
    // operating system's collations.
    let key = " COLLATE \"C\" NOT NULL";
    let mut columns = vec![column("id", "bigint", identity, false)];
    for field in &entity.fields {
        let kind = match field.kind {
            Kind::String => "text",
            Kind::Boolean => "boolean",
            Kind::Long | Kind::Reference => "bigint",
            Kind::Decimal => "numeric",
            Kind::Date => "date",
            Kind::Datetime => MOMENT,
        };
        columns.push(column(&snake_case(&field.name), kind, "", true));
    }
    columns.extend([
        column("custom", "jsonb", " NOT NULL DEFAULT '{}'", true),
        column("drover_source", "text", key, false),
        column("drover_object", "text", key, false),
        column("drover_id", "text", key, false),
        column("drover_slot", "text", key, false),
        column("drover_version", MOMENT, " NOT NULL", false),
        column("drover_order", "bigint[]", " NOT NULL", false),
        column("drover_created", MOMENT, " NOT NULL", false),
        column("drover_deleted_at", MOMENT, "", true),
    ]);
    columns
}

const MOMENT: &str = "timestamp with time zone";

/// A name as an SQL identifier.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as an SQL literal.
fn literal(text: &str) -> String {
    // Said to be one with escapes, so that a backslash means the same everywhere.
    let text = text.replace('\\', "\\\\").replace('\'', "''");
    format!("E'{text}'")
}

/// `phoneNumber` → `phone_number`.
pub(crate) fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn columns_are_named_after_fields_and_never_twice() {
        for entity in drover_schemas::entities() {
            let table = Table::new(entity, "public");
            let names: HashSet<_> = table.columns.iter().map(|c| &c.name).collect();
            assert_eq!(names.len(), table.columns.len(), "{}", entity.name);
            assert_eq!(table.columns.len(), entity.fields.len() + 10);
        }
        assert_eq!(snake_case("mailingPostalCode"), "mailing_postal_code");
    }

    #[test]
    fn names_are_quoted() {
        let contact = drover_schemas::entity("contact").expect("the contact");
        let table = Table::new(contact, "a \"b\"");
        assert_eq!(table.name, "\"a \"\"b\"\"\".\"contact\"");
        assert!(table.create().contains("\"phone_number\" text,"));
        assert!(table.create().contains("\"company_id\" bigint,"));
        assert!(!table.copy.contains("drover_created"));
    }
}
