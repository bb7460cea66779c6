//! A disk that is full when a test wants it to be.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory that is quickly full; unmounted when dropped. For root only.
pub struct SmallDisk {
    directory: PathBuf,
}

impl SmallDisk {
    /// Its size.
    const MIB: usize = 32;

    /// Mounts it there.
    ///
    /// # Panics
    /// When that is not allowed.
    pub fn mount(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("a directory");
        let size = format!("size={}m", Self::MIB);
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory).status();
        assert!(mounted.expect("mount can be run").success(), "only root may mount");
        Self { directory: directory.to_owned() }
    }

    /// Leaves no space.
    ///
    /// # Panics
    /// When nothing can be written at all.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("the file can be made");
        let piece = vec![0; 4096];
        while file.write_all(&piece).is_ok() {}
    }

    /// Gives back the space that [`Self::fill`] has taken.
    ///
    /// # Panics
    /// When there was none.
    pub fn empty(&self) {
        fs::remove_file(self.filler()).expect("the file can be removed");
    }

    fn filler(&self) -> PathBuf {
        self.directory.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may have files open there still.
        let _ = Command::new("umount").arg("--lazy").arg(&self.directory).status();
    }
}
