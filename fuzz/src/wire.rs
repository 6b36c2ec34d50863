//! What crosses the wire: messages that are decoded come out as they went in, and errors survive headers.

use std::fmt::Debug;

use meshstore::{
    Error,
    proto::{error_from_status, status_from_error},
};
use tonic::Status;

/// A message of these bytes, if they are one.
pub fn decode<M: prost::Message + Default + PartialEq + Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    assert!(same(&sent(&message), &message), "{message:?} is not what it was");
    Some(message)
}

/// A message as the other side reads it.
pub fn sent<M: prost::Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).expect("what was encoded can be decoded")
}

/// Whether messages are the same; a number that is none is the same as itself.
fn same<M: PartialEq + Debug>(one: &M, other: &M) -> bool {
    one == other || format!("{one:?}") == format!("{other:?}")
}

pub fn decoded<M: prost::Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    drop(decode::<M>(bytes));
}

/// What a server answers, as a client reads it.
pub fn answer<M: prost::Message + Default + PartialEq + Debug, T: TryFrom<M, Error = Error>>(bytes: &[u8]) {
    let Some(answer) = decode::<M>(bytes) else { return };
    if let Err(error) = T::try_from(answer) {
        assert!(matches!(error, Error::Unexpected(_)), "{error:?}");
    }
}

/// An error survives the wire: at once if its texts are short, else with them shortened once. And it fits.
pub fn told(error: &Error) {
    let once = through_headers(error);
    assert_eq!(through_headers(&once), once);
    if error.to_string().len() < 500 {
        assert_eq!(&once, error);
    }
}

fn through_headers(error: &Error) -> Error {
    let mut headers = tonic::codegen::http::HeaderMap::new();
    status_from_error(error).add_header(&mut headers).expect("a status is headers");
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(bytes <= 8 << 10, "{bytes} bytes of headers for {error:?}");
    error_from_status(&Status::from_header_map(&headers).expect("headers are a status"))
}
