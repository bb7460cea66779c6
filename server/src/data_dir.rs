//! The data directory: what a node must still know after a restart. That is its identity.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use forebay_cluster::NodeId;

/// The file of the identity: 40 hexadecimal digits and a line end.
const NODE_ID_FILE: &str = "node-id";

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("{path}: {source}\n  hint: --data-dir names a directory that this user may write")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} holds no node id ({problem})\n  hint: restore the file, or remove it to start as a new node")]
    Corrupt { path: PathBuf, problem: String },
    #[error(
        "{path} has the identity {kept}, and --node-id says {given}\n  hint: leave --node-id away to be the node that this directory is of, \
         or give --data-dir another one"
    )]
    Another { path: PathBuf, kept: NodeId, given: NodeId },
}

/// The identity that is kept in `directory`. On the first start both are created: the identity is the one that was `given`, or is made by
/// `new`.
///
/// # Errors
/// When the directory cannot be used, or the file holds another identity than was given, or something else.
pub fn node_id(directory: &Path, given: Option<&NodeId>, new: impl FnOnce() -> NodeId) -> Result<NodeId, DataDirError> {
    create(directory)?;
    let path = directory.join(NODE_ID_FILE);
    match fs::read(&path) {
        Ok(bytes) => kept(path, &bytes, given),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            keep(directory, &path, given.cloned().unwrap_or_else(new))
        }
        Err(source) => Err(DataDirError::Io { path, source }),
    }
}

/// Creates the directory, if it is not there.
fn create(directory: &Path) -> Result<(), DataDirError> {
    fs::create_dir_all(directory).map_err(|source| DataDirError::Io { path: directory.to_owned(), source })
}

/// What the file holds, if that is the identity that was given or none was.
fn kept(path: PathBuf, bytes: &[u8], given: Option<&NodeId>) -> Result<NodeId, DataDirError> {
    match (parse(bytes), given) {
        (Err(problem), _) => Err(DataDirError::Corrupt { path, problem }),
        (Ok(kept), Some(given)) if kept != *given => Err(DataDirError::Another { path, kept, given: given.clone() }),
        (Ok(kept), _) => Ok(kept),
    }
}

fn parse(bytes: &[u8]) -> Result<NodeId, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    NodeId::parse(text.trim_end()).map_err(|error| error.to_string())
}

/// Writes the identity aside first, so that a crash leaves either no file or a whole one.
fn keep(directory: &Path, path: &Path, id: NodeId) -> Result<NodeId, DataDirError> {
    let aside = directory.join(format!("{NODE_ID_FILE}.new"));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&aside)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().map_err(|source| DataDirError::Io { path: path.to_owned(), source })?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_outlives_restarts() {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = directory.path().join("deep/er");
        let [first, second] = [1, 2].map(|byte| NodeId::from_bytes([byte; 20]));
        assert_eq!(node_id(&inner, None, || first.clone()).expect("created"), first);
        assert_eq!(node_id(&inner, None, || second.clone()).expect("read"), first);
        assert_eq!(node_id(&inner, Some(&first), || second.clone()).expect("the same"), first);
    }

    #[test]
    fn an_identity_that_is_given_is_kept_and_no_other_one_is_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        let [first, second] = [1, 2].map(|byte| NodeId::from_bytes([byte; 20]));
        let at = |given: Option<&NodeId>| node_id(directory.path(), given, || unreachable!("one is given or kept"));
        assert_eq!(at(Some(&first)).expect("created"), first);
        assert_eq!(at(None).expect("read"), first);
        let error = at(Some(&second)).expect_err("another one").to_string();
        assert!([first.as_str(), second.as_str(), "hint:"].iter().all(|word| error.contains(word)), "{error}");
        assert_eq!(at(None).expect("as it was"), first);
    }

    #[test]
    fn a_corrupt_file_is_named_and_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        for content in [&b"not an id"[..], b"", b"\xff\xfe", &[b'a'; 39]] {
            fs::write(directory.path().join(NODE_ID_FILE), content).expect("written");
            let error =
                node_id(directory.path(), None, || unreachable!("there is a file")).expect_err("corrupt").to_string();
            assert!(error.contains("node-id") && error.contains("hint:"), "{error}");
            assert_eq!(fs::read(directory.path().join(NODE_ID_FILE)).expect("still there"), content);
        }
    }
}
