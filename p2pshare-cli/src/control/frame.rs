//! Frames: a length of four bytes, little-endian and bounded, then that many bytes of postcard.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Sends one message.
pub(crate) async fn write_frame<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length <= FRAME_BYTES_MAX)
        .ok_or_else(too_large)?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    to.write_all(&frame).await?;
    to.flush().await
}

/// Receives one message. Not cancel-safe: what was read of a frame is lost.
///
/// Bytes after the message are ignored only where `T` says so by being a hello; see [`read_open_frame`].
pub(crate) async fn read_frame<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    match postcard::take_from_bytes(&read_body(from).await?) {
        Ok((message, [])) => Ok(message),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Receives one message to which later versions may have added fields at the end.
pub(crate) async fn read_open_frame<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let body = read_body(from).await?;
    postcard::take_from_bytes(&body)
        .map(|(message, _)| message)
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

async fn read_body(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32_le().await?;
    if length > FRAME_BYTES_MAX {
        return Err(too_large());
    }
    let mut body = Vec::new();
    from.take(length.into()).read_to_end(&mut body).await?;
    if body.len() as u64 != u64::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a frame of the control protocol is too large",
    )
}

/// Most bytes in a frame; the largest message is the listing of a group's files.
const FRAME_BYTES_MAX: u32 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[tokio::test]
    async fn a_message_comes_back_and_every_cut_of_it_fails() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &("hello".to_owned(), 300_u64))
            .await
            .unwrap();
        assert_eq!(
            read_frame::<(String, u64)>(&mut &bytes[..]).await.unwrap(),
            ("hello".to_owned(), 300)
        );
        for cut in 0..bytes.len() {
            assert!(
                read_frame::<(String, u64)>(&mut &bytes[..cut])
                    .await
                    .is_err(),
                "{cut}"
            );
        }
    }

    #[tokio::test]
    async fn a_huge_length_is_refused_before_anything_is_read() {
        let error = read_frame::<Vec<u8>>(&mut &[0xff, 0xff, 0xff, 0xff][..])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut sink = Vec::new();
        let too_much = vec![0_u8; FRAME_BYTES_MAX as usize];
        assert!(write_frame(&mut sink, &too_much).await.is_err());
        assert!(sink.is_empty());
    }

    #[tokio::test]
    async fn only_a_hello_may_have_grown() {
        #[derive(Serialize)]
        struct Newer(u16, u16);
        #[derive(Deserialize)]
        struct Older(u16);
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &Newer(1, 2)).await.unwrap();
        assert_eq!(
            read_open_frame::<Older>(&mut &bytes[..]).await.unwrap().0,
            1
        );
        assert!(read_frame::<Older>(&mut &bytes[..]).await.is_err());
    }
}
