//! Values: from the argument itself, from a file, or from standard input.

use std::io::Read;

use serde::de::DeserializeOwned;

use super::failure::Failure;
use crate::limits;

/// The value that an argument means: `-` is standard input, `@FILE` a file, `@@...` a value that begins with
/// one `@`, anything else itself.
pub(super) fn bytes(argument: &str) -> Result<Vec<u8>, Failure> {
    bytes_up_to(argument, limits::VALUE_BYTES)
}

/// The same, of at most so many bytes.
pub(super) fn bytes_up_to(argument: &str, most: usize) -> Result<Vec<u8>, Failure> {
    match argument {
        "-" => read("standard input", std::io::stdin().lock(), most),
        _ => match argument.strip_prefix('@') {
            None => Ok(argument.into()),
            Some(literal) if literal.starts_with('@') => Ok(literal.into()),
            Some(path) => file(path, most),
        },
    }
}

/// What a file holds, at most so many bytes.
pub(super) fn file(path: &str, most: usize) -> Result<Vec<u8>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    read(path, file, most)
}

/// The same, of a value that must be text.
pub(super) fn text(argument: &str) -> Result<String, Failure> {
    text_up_to(argument, limits::VALUE_BYTES)
}

/// The same, of at most so many bytes.
pub(super) fn text_up_to(argument: &str, most: usize) -> Result<String, Failure> {
    let bytes = bytes_up_to(argument, most)?;
    String::from_utf8(bytes).map_err(|_| Failure::usage("the value must be JSON or YAML, and so UTF-8 text"))
}

/// What a text in YAML or JSON describes. What is wrong is named with its place, like `nodes[3].port`.
pub(super) fn described<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    // JSON is YAML. By way of a value, because that knows the place of what is wrong in it.
    let value: serde_json::Value = serde_saphyr::from_str(text)
        .map_err(|error| Failure::usage(format!("the file is not YAML or JSON: {error}")))?;
    serde_path_to_error::deserialize(value)
        .map_err(|error| Failure::usage(format!("{} in the file: {}", error.path(), error.inner())))
}

fn read(name: &str, from: impl Read, most: usize) -> Result<Vec<u8>, Failure> {
    // Only as much as can be told apart from too much: standard input may never end.
    let mut value = Vec::new();
    let enough = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    from.take(enough).read_to_end(&mut value).map_err(|error| unreadable(name, &error))?;
    if value.len() > most {
        return Err(Failure::usage(format!("{name} holds more than {most} bytes, the most that may be sent")));
    }
    Ok(value)
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read the value from {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_itself_or_names_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value");
        std::fs::write(&path, [0, 255, b'\n']).unwrap();
        assert_eq!(bytes(&format!("@{}", path.display())).unwrap(), [0, 255, b'\n'], "every byte");
        assert_eq!(bytes("plain").unwrap(), b"plain");
        assert_eq!(bytes("@@plain").unwrap(), b"@plain");
        assert_eq!(bytes("").unwrap(), b"");
        assert!(matches!(bytes("@no/such/file"), Err(Failure::Usage(_))));
        assert!(matches!(text(&format!("@{}", path.display())), Err(Failure::Usage(_))));
        std::fs::write(&path, vec![0; limits::VALUE_BYTES]).unwrap();
        assert_eq!(bytes(&format!("@{}", path.display())).unwrap().len(), limits::VALUE_BYTES);
        std::fs::write(&path, vec![0; limits::VALUE_BYTES + 1]).unwrap();
        assert!(matches!(bytes(&format!("@{}", path.display())), Err(Failure::Usage(_))));
    }
}
