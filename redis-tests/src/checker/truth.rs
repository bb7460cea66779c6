//! What the database has held, in the order of its commits.
//!
//! Each change of a row takes the next number of its key, under a lock that lasts to the commit: so a key's numbers are in the order of the
//! commits. A journal in the database notes each number with its transaction, in that transaction: what was rolled back is not in it.

use std::collections::HashMap;

use super::psql::Psql;

/// The tables whose rows are read: one is followed through the write-ahead log, the other by triggers.
pub const TABLES: [&str; 2] = ["items", "notes"];

/// What a reader was given for a key: the number and the transaction of a change, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub number: u64,
    pub transaction: u64,
}

/// One key in so many has no row at first.
const MISSING: u32 = 10;

fn is_there_first(id: u32) -> bool {
    !id.is_multiple_of(MISSING)
}

/// The tables with `keys` rows each, and the journal.
pub fn schema(keys: u32) -> String {
    let tables = TABLES.map(|table| {
        format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, version bigint, xid bigint);\n\
             INSERT INTO counters SELECT '{table}', n, 0 FROM generate_series(1, {keys}) n;\n\
             CREATE TRIGGER stamp BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION stamp();\n\
             CREATE TRIGGER stamp_all BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION stamp_all();\n\
             INSERT INTO {table} SELECT n FROM generate_series(1, {keys}) n WHERE n % {MISSING} > 0;\n"
        )
    });
    format!(
        "CREATE TABLE counters (name text, id int, version bigint NOT NULL, PRIMARY KEY (name, id));\n\
         CREATE TABLE journal (name text, id int, version bigint, xid bigint, gone boolean);\n\
         CREATE FUNCTION next_version(of_name text, of_id int, is_gone boolean) RETURNS bigint LANGUAGE plpgsql AS $$\n\
         DECLARE number bigint;\n\
         BEGIN\n\
           UPDATE counters SET version = version + 1 WHERE name = of_name AND id = of_id RETURNING version INTO number;\n\
           INSERT INTO journal VALUES (of_name, of_id, number, txid_current(), is_gone);\n\
           RETURN number;\n\
         END $$;\n\
         CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$\n\
         BEGIN\n\
           IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN\n\
             PERFORM next_version(TG_TABLE_NAME, OLD.id, true);\n\
           END IF;\n\
           IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;\n\
           NEW.version := next_version(TG_TABLE_NAME, NEW.id, false);\n\
           NEW.xid := txid_current();\n\
           RETURN NEW;\n\
         END $$;\n\
         CREATE FUNCTION stamp_all() RETURNS trigger LANGUAGE plpgsql AS $$\n\
         DECLARE row record;\n\
         BEGIN\n\
           FOR row IN EXECUTE format('SELECT id FROM %I', TG_TABLE_NAME) LOOP\n\
             PERFORM next_version(TG_TABLE_NAME, row.id, true);\n\
           END LOOP;\n\
           RETURN NULL;\n\
         END $$;\n{}",
        tables.concat()
    )
}

/// The changes of a key, with their numbers.
type Changes = Vec<(u64, Option<Version>)>;

/// All that readers may have seen.
pub struct Truth {
    /// By table and id: the changes that came to be seen, in their order. `None`: the row was not there.
    by_key: HashMap<(usize, u32), Changes>,
    /// Transactions that have changed rows.
    pub commits: usize,
}

impl Truth {
    /// Reads the journal.
    ///
    /// # Panics
    /// When the database does not answer.
    pub fn read(url: &str) -> Self {
        // Of several changes of a key by one transaction the last is seen.
        let rows = Psql::open(url)
            .run("SELECT name, id, max(version), xid, (array_agg(gone ORDER BY version DESC))[1] FROM journal GROUP BY name, id, xid ORDER BY 3")
            .expect("the database answers");
        let mut by_key: HashMap<(usize, u32), Changes> = HashMap::new();
        let mut transactions = std::collections::HashSet::new();
        for row in &rows {
            let fields: Vec<&str> = row.split('|').collect();
            let [name, id, number, transaction, gone] = fields[..] else { panic!("{row}") };
            let table = TABLES.iter().position(|table| *table == name).expect("a table of ours");
            let [id, number, transaction] =
                [id, number, transaction].map(|text| text.parse::<u64>().expect("a number"));
            transactions.insert(transaction);
            let version = (gone == "f").then_some(Version { number, transaction });
            by_key.entry((table, id as u32)).or_default().push((number, version));
        }
        Self { by_key, commits: transactions.len() }
    }

    /// What is wrong with what one session has seen of a key, one after the other.
    pub fn fault(&self, table: usize, id: u32, seen: &[Option<Version>]) -> Option<String> {
        let changes = self.by_key.get(&(table, id)).map(Vec::as_slice).unwrap_or_default();
        let mut at = 0;
        for version in seen {
            match version {
                Some(version) => {
                    let Ok(found) = changes.binary_search_by_key(&version.number, |(number, _)| *number) else {
                        return Some(format!("{version:?} was never committed"));
                    };
                    if changes[found].1 != Some(*version) {
                        return Some(format!("{version:?} was never committed, but {:?}", changes[found]));
                    }
                    if version.number < at {
                        return Some(format!("{version:?} after {at}"));
                    }
                    at = version.number;
                }
                None if at == 0 && !is_there_first(id) => {}
                None => match changes.iter().find(|(number, version)| *number >= at && version.is_none()) {
                    Some((number, _)) => at = *number,
                    None => return Some(format!("nothing after {at}, and it was not deleted since")),
                },
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> Option<Version> {
        Some(Version { number, transaction: number + 100 })
    }

    fn truth() -> Truth {
        let changes = vec![(1, version(1)), (2, None), (4, version(4)), (5, version(5)), (6, None)];
        Truth { by_key: HashMap::from([((0, 10), changes)]), commits: 5 }
    }

    #[test]
    fn what_was_committed_may_be_seen_in_its_order() {
        for seen in [
            &[version(1), None, version(4), version(5), None][..],
            &[None, version(1), version(1), version(5)],
            &[None, None, version(4), None],
        ] {
            assert_eq!(truth().fault(0, 10, seen), None, "{seen:?}");
        }
    }

    #[test]
    fn what_was_invented_or_is_old_is_a_fault() {
        let of_another = Some(Version { number: 4, transaction: 1 });
        for seen in [
            &[version(3)][..],
            &[of_another],
            &[version(4), version(1)],
            &[version(1), None, version(1)],
            &[version(5), None, version(5)],
            &[version(2)],
        ] {
            assert!(truth().fault(0, 10, seen).is_some(), "{seen:?}");
        }
        let never_gone = Truth { by_key: HashMap::from([((0, 7), vec![(1, version(1))])]), commits: 1 };
        assert!(never_gone.fault(0, 7, &[version(1), None]).is_some());
        assert!(never_gone.fault(0, 7, &[None]).is_some());
    }
}
