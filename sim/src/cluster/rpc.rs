//! What travels between a process and the store: frames, each a length of four
//! bytes and so many bytes of JSON.

use std::collections::BTreeSet;
use std::io;

use job_engine::store::{Finish, NewJob};
use job_engine::{Command, JobType, Reply, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of the longest frame: a claim of a thousand jobs fits.
pub const FRAME_LEN_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a length.
pub const HEADER_LEN: usize = 4;

/// The first frame of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The key of the worker.
    pub worker: u32,
    /// Which start of its process.
    pub incarnation: u32,
    /// Whether it listens to announcements; else it makes calls.
    pub listens: bool,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Names the call; its response names it too.
    pub op: u64,
    /// What to do.
    pub body: Body,
}

/// What a process can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Carry out one command.
    Execute(Command),
    /// Carry out a transaction of a runner: the end of its run, and if that is
    /// recorded, the spawns.
    Commit {
        /// The end.
        finish: Finish,
        /// The spawns.
        children: Vec<NewJob>,
    },
    /// Tell all listeners.
    Announce(BTreeSet<JobType>),
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Which call.
    pub op: u64,
    /// What came of it; `None` for an announcement.
    pub result: Result<Option<Reply>, StoreError>,
}

/// What a listener is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// From here on announcements arrive.
    Listening,
    /// The connection is alive.
    Ping,
    /// Jobs of this type may be due.
    Due(JobType),
}

/// Why a connection cannot be used any more.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The other side wants to send too much at once, or sends something else.
    #[error("a frame of {len} bytes, at most {FRAME_LEN_MAX} are allowed")]
    TooLong {
        /// How long it is.
        len: usize,
    },
    /// The other side is gone in the middle of a frame.
    #[error("the connection ended after {len} bytes of a frame")]
    Truncated {
        /// How much of it arrived.
        len: usize,
    },
    /// The frame is not what belongs here.
    #[error("a frame that cannot be decoded: {0}")]
    Undecodable(#[from] serde_json::Error),
    /// The connection is broken.
    #[error("the connection is broken: {0}")]
    Broken(#[from] io::Error),
}

/// Sends one frame.
///
/// # Errors
///
/// [`FrameError::TooLong`] before anything is sent, [`FrameError::Broken`] after
/// an unknown part of it.
pub async fn write_frame<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), FrameError> {
    let mut frame = vec![0; HEADER_LEN];
    serde_json::to_writer(&mut frame, message)?;
    let len = frame.len() - HEADER_LEN;
    if len > FRAME_LEN_MAX {
        return Err(FrameError::TooLong { len });
    }
    frame[..HEADER_LEN].copy_from_slice(&(len as u32).to_be_bytes());
    to.write_all(&frame).await?;
    Ok(())
}

/// Takes in the frames of a connection.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: R,
    /// What arrived of the next frames.
    bytes: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from a connection on which nothing has been read.
    pub fn new(from: R) -> Self {
        Self {
            from,
            bytes: Vec::with_capacity(4_096),
        }
    }

    /// The next frame; `None` if the connection ended in good order. Cancel
    /// safe.
    ///
    /// # Errors
    ///
    /// Any [`FrameError`]; the connection is of no use then.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(serde_json::from_slice(&frame)?));
            }
            if self.from.read_buf(&mut self.bytes).await? == 0 {
                return match self.bytes.len() {
                    0 => Ok(None),
                    len => Err(FrameError::Truncated { len }),
                };
            }
        }
    }

    /// Bytes that it has set aside for what arrives.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The next frame, if all of it is here.
    fn take(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some(header) = self.bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*header) as usize;
        if len > FRAME_LEN_MAX {
            return Err(FrameError::TooLong { len });
        }
        let end = HEADER_LEN + len;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let frame = self.bytes[HEADER_LEN..end].to_vec();
        self.bytes.drain(..end);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(op: u64) -> Request {
        let body = Body::Announce([JobType::new("alpha")].into());
        Request { op, body }
    }

    async fn frame_of(request: &Request) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, request).await.unwrap();
        bytes
    }

    async fn read(bytes: &[u8]) -> Result<Option<Request>, FrameError> {
        FrameReader::new(bytes).next().await
    }

    #[tokio::test]
    async fn frames_arrive_as_they_were_sent_however_they_are_cut() {
        let mut bytes = frame_of(&request(1)).await;
        bytes.extend(frame_of(&request(2)).await);
        let (mut near, far) = tokio::io::duplex(3);
        let sent = async move {
            near.write_all(&bytes).await.unwrap();
        };
        let received = async move {
            let mut frames = FrameReader::new(far);
            for op in [1, 2] {
                let arrived: Option<Request> = frames.next().await.unwrap();
                assert_eq!(arrived, Some(request(op)));
            }
            assert_eq!(frames.next::<Request>().await.unwrap(), None);
        };
        tokio::join!(sent, received);
    }

    #[tokio::test]
    async fn a_frame_that_is_cut_off_is_an_error() {
        let bytes = frame_of(&request(1)).await;
        for len in 1..bytes.len() {
            let error = read(&bytes[..len]).await.unwrap_err();
            let FrameError::Truncated { len: arrived } = error else {
                panic!("{error}");
            };
            assert_eq!(arrived, len);
        }
        assert_eq!(read(&[]).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_oversized_frame_is_refused_before_it_is_read() {
        let error = read(&[0xff; HEADER_LEN]).await.unwrap_err();
        assert!(matches!(error, FrameError::TooLong { len } if len == u32::MAX as usize));
        let text = error.to_string();
        assert_eq!(
            text,
            "a frame of 4294967295 bytes, at most 16777216 are allowed"
        );
    }

    #[tokio::test]
    async fn a_frame_of_something_else_cannot_be_decoded() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &Notice::Ping).await.unwrap();
        let error = read(&bytes).await.unwrap_err();
        assert!(matches!(error, FrameError::Undecodable(_)));
    }
}
