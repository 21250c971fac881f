//! The page of the admin address.

use http_body_util::Full;
use hyper::{
    Response,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderValue},
};

/// The file at this path.
pub(super) fn file(path: &str) -> Option<Response<Full<Bytes>>> {
    let file = portlane_page::file(path)?;
    let mut response = Response::new(Full::new(Bytes::from_static(file.content.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    for (name, value) in portlane_page::HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}
