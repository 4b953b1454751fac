//! How the culprits of a refused batch are found, so that only they are
//! rejected: the batch is halved, each half tried behind a savepoint, until a
//! refused part is a single row. One culprit in 10,000 rows costs about 28
//! tries and each good row is written once; where nearly every row is bad (a
//! new required column), the rest goes row by row.

use std::ops::Range;

use drover_pipeline::load::{Item, Outcome};

use crate::apply::write;
use crate::error::{concerns_rows, refused};
use crate::pool::Connection;
use crate::table::Table;

/// Halving parts of this size finds nothing faster than trying each row.
const SMALL: usize = 4;
/// So many culprits, more than half of all rows so far, and halving is given up.
const HOPELESS: usize = 32;
/// Rows of earlier tries stay in the staging table's file, dead, and every later
/// try reads over them, until so many lie there that TRUNCATE costs less.
const LITTER: usize = 100;

/// Writes what can be written of a batch that was refused as a whole with that
/// error, inside the open transaction.
pub(crate) async fn isolate(
    connection: &mut Connection,
    table: &Table,
    batch: &[Item<'_>],
    error: tokio_postgres::Error,
) -> Result<Vec<Outcome>, tokio_postgres::Error> {
    let mut search = Search {
        table,
        parts: Vec::new(),
        outcomes: Vec::with_capacity(batch.len()),
        culprits: 0,
    };
    search.divide(0..batch.len(), &error);
    let mut litter = 0;
    let mut staged = false;
    // What ends the try before, sent together with what begins the next one.
    let mut end = "";
    while let Some(part) = search.parts.pop() {
        let mut open = end.to_owned();
        // Before the savepoint, or going back to it would bring the litter back.
        if litter > LITTER + 4 * part.len() {
            open.push_str(&format!("TRUNCATE {}; ", table.stage));
            litter = 0;
        } else if staged {
            open.push_str(&format!("DELETE FROM {}; ", table.stage));
        }
        open.push_str("SAVEPOINT part");
        connection.client.batch_execute(&open).await?;
        litter += part.len();
        match write(connection, table, batch, part.clone()).await {
            Ok(written) => {
                end = "RELEASE part; ";
                search.outcomes.extend(written);
                staged = true;
            }
            Err(error) if concerns_rows(&error) => {
                end = "ROLLBACK TO part; RELEASE part; ";
                search.divide(part, &error);
                staged = false;
            }
            Err(error) => return Err(error),
        }
    }
    connection.client.batch_execute(end).await?;
    Ok(search.outcomes)
}

/// What is known so far.
struct Search<'a> {
    table: &'a Table,
    // A stack with the front of the batch on top, so that outcomes come in order.
    parts: Vec<Range<usize>>,
    outcomes: Vec<Outcome>,
    culprits: usize,
}

impl Search<'_> {
    /// Divides a refused part, or rejects the single row that it is.
    fn divide(&mut self, part: Range<usize>, error: &tokio_postgres::Error) {
        if part.len() <= 1 {
            let error = refused(error, &self.table.entity.name);
            self.outcomes.push(Outcome::Rejected(error));
            self.culprits += 1;
            return;
        }
        let hopeless = self.culprits >= HOPELESS && self.culprits * 2 > self.outcomes.len();
        if hopeless || part.len() <= SMALL {
            self.parts.extend(part.rev().map(|row| row..row + 1));
            return;
        }
        let middle = part.start + part.len() / 2;
        self.parts.push(middle..part.end);
        self.parts.push(part.start..middle);
    }
}
