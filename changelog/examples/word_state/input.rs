//! The text: files, directories and standard input.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::Result;

/// Endings of files that count as text when a directory is walked.
const TEXT: [&str; 12] = ["rs", "md", "txt", "toml", "c", "h", "cpp", "py", "sh", "json", "html", "yml"];

/// Something to read, under the name it has in the index.
pub enum Input {
    File { path: PathBuf, name: String, bytes: u64, fingerprint: String },
    Standard,
}

/// All inputs: files by name, directories walked; none given, this repository.
pub fn find(arguments: &[PathBuf]) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    let repository = [repository()];
    for argument in if arguments.is_empty() { &repository[..] } else { arguments } {
        if argument == Path::new("-") {
            inputs.push(Input::Standard);
        } else if argument.is_dir() {
            walk(argument, &mut inputs)?;
        } else {
            inputs.push(file(argument)?);
        }
    }
    Ok(inputs)
}

/// The repository this was built from, or, if that has moved, the current directory.
fn repository() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf);
    built.filter(|path| path.is_dir()).unwrap_or_else(|| PathBuf::from("."))
}

fn walk(dir: &Path, inputs: &mut Vec<Input>) -> Result<()> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_symlink() || name.starts_with('.') || name == "target" {
            continue;
        }
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_dir() {
            walk(&path, inputs)?;
        } else if ending.is_some_and(|ending| TEXT.contains(&ending)) {
            inputs.push(file(&path)?);
        }
    }
    Ok(())
}

fn file(path: &Path) -> Result<Input> {
    let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let fingerprint = format!("{} bytes of {}", metadata.len(), modified.as_nanos());
    let name = std::fs::canonicalize(path)?.to_string_lossy().into_owned();
    Ok(Input::File { path: path.to_owned(), name, bytes: metadata.len(), fingerprint })
}

impl Input {
    /// The name in the index. Keys are bounded, so is this.
    pub fn name(&self) -> &str {
        match self {
            Input::File { name, .. } => name,
            Input::Standard => "standard input",
        }
    }

    pub fn bytes(&self) -> u64 {
        match self {
            Input::File { bytes, .. } => *bytes,
            Input::Standard => 0,
        }
    }

    /// What tells a file that was counted from one that has changed since; standard input is new each time.
    pub fn fingerprint(&self) -> Option<&str> {
        match self {
            Input::File { fingerprint, .. } => Some(fingerprint),
            Input::Standard => None,
        }
    }

    pub fn open(&self) -> Result<Box<dyn BufRead>> {
        Ok(match self {
            Input::File { path, .. } => Box::new(BufReader::new(std::fs::File::open(path)?)),
            Input::Standard => Box::new(BufReader::new(io::stdin())),
        })
    }
}
