//! Paths that an operator names: where the daemon may make files that are not the array's own.

use std::path::{Component, Path, PathBuf};

use super::ArrayError;

/// The place that `path` means, symbolic links followed, when it is absolute and outside of the data directory: what lies
/// in there only the array makes and removes.
pub(super) fn outside(asked: &str, data_dir: &Path, path: &Path) -> Result<PathBuf, ArrayError> {
    let usage = |why: &str| ArrayError::usage(asked, why, "name another path");
    if !path.is_absolute() {
        let why = "the daemon does not run in your directory, so it needs an absolute path";
        return Err(ArrayError::usage(asked, why, "name the whole path"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(usage("its path goes up by '..'"));
    }
    let failed = |error: std::io::Error| ArrayError::io(asked, path.display(), &error);
    let there = path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()).unwrap_or(path);
    let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
    let mut place = there.canonicalize().map_err(failed)?;
    if !rest.as_os_str().is_empty() {
        place.push(rest);
    }
    if place.starts_with(data_dir) {
        let why =
            format!("{} lies in the data directory, in which only the array makes files", place.display());
        return Err(ArrayError::refused(asked, why, "name a path outside of it"));
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Kind;

    #[test]
    fn only_whole_paths_outside_of_the_data_directory_pass() {
        let temporary = tempfile::tempdir().unwrap();
        let base = temporary.path().canonicalize().unwrap();
        let data = base.join("data");
        std::fs::create_dir_all(data.join("pairs")).unwrap();
        std::fs::create_dir(base.join("other")).unwrap();
        std::os::unix::fs::symlink(&data, base.join("link")).unwrap();
        let kind = |path: &str| outside("test", &data, &base.join(path)).map_err(|error| error.kind);
        assert_eq!(kind("other/a/b"), Ok(base.join("other/a/b")));
        assert_eq!(kind("database"), Ok(base.join("database")));
        assert_eq!(kind("data"), Err(Kind::Refused));
        assert_eq!(kind("data/pairs/p"), Err(Kind::Refused));
        assert_eq!(kind("link/pairs/p"), Err(Kind::Refused));
        assert_eq!(kind("other/../data/x"), Err(Kind::Usage));
        assert_eq!(outside("test", &data, Path::new("x")).map_err(|error| error.kind), Err(Kind::Usage));
    }
}
