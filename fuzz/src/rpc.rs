//! The frames of the simulator's RPC: any bytes, cut in any way.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use job_engine::store::{Claimed, Reclaimed, Spawned, Written};
use job_engine::{Reply, StoreError};
use job_sim::cluster::rpc::{
    Body, FRAME_LEN_MAX, FrameError, FrameReader, HEADER_LEN, Hello, Notice, Request, Response,
    write_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, ReadBuf};

use crate::source::Source;

/// What a reader may set aside at most, for so many bytes that are there.
const ROOM_MIN: usize = 8_192;

/// Reads the bytes as frames, or makes messages of them and sends those.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let cuts = source.bytes();
    match source.byte() % 8 {
        0 => read::<Hello>(source.rest(), cuts),
        1 | 2 => read::<Request>(source.rest(), cuts),
        3 | 4 => read::<Response>(source.rest(), cuts),
        5 => read::<Notice>(source.rest(), cuts),
        _ => {
            while !source.is_empty() {
                send_any(&mut source, cuts);
            }
        }
    }
}

/// A connection that delivers a few bytes at a time, then ends.
struct Wire<'a> {
    bytes: &'a [u8],
    /// How many bytes come at once, in turn.
    cuts: [u8; 2],
}

impl AsyncRead for Wire<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        wire.cuts.rotate_left(1);
        let len = match wire.cuts[0] {
            0 => usize::MAX,
            len => usize::from(len),
        };
        let (now, later) = wire
            .bytes
            .split_at(len.min(wire.bytes.len()).min(into.remaining()));
        into.put_slice(now);
        wire.bytes = later;
        Poll::Ready(Ok(()))
    }
}

type Frames<'a> = FrameReader<Wire<'a>>;

fn frames(bytes: &[u8], cuts: [u8; 2]) -> Frames<'_> {
    FrameReader::new(Wire { bytes, cuts })
}

fn next<T: DeserializeOwned>(frames: &mut Frames<'_>) -> Result<Option<T>, FrameError> {
    let next = frames.next().now_or_never();
    next.expect("the wire never makes anyone wait")
}

/// What a reader makes of the bytes is what they say when they are cut up by
/// hand.
fn read<T>(bytes: &[u8], cuts: [u8; 2])
where
    T: Serialize + DeserializeOwned + PartialEq + fmt::Debug,
{
    let mut frames = frames(bytes, cuts);
    let mut rest = bytes;
    loop {
        let next = next::<T>(&mut frames);
        let room = frames.capacity();
        assert!(
            room <= ROOM_MIN + 2 * bytes.len(),
            "room for {room} bytes, for {} that came",
            bytes.len()
        );
        if rest.is_empty() {
            assert!(matches!(next, Ok(None)), "the end became {next:?}");
            return;
        }
        let announced = rest
            .first_chunk()
            .map(|header| u32::from_be_bytes(*header) as usize);
        match (announced, next) {
            (Some(len), next) if len > FRAME_LEN_MAX => {
                let refused = matches!(next, Err(FrameError::TooLong { len: of }) if of == len);
                assert!(refused, "a frame of {len} bytes became {next:?}");
                return;
            }
            (Some(len), next) if len <= rest.len() - HEADER_LEN => {
                let (frame, behind) = rest[HEADER_LEN..].split_at(len);
                match (serde_json::from_slice::<T>(frame), next) {
                    (Ok(expected), Ok(Some(message))) => {
                        assert_eq!(message, expected);
                        assert_eq!(sent(&message, cuts), message, "sent and received");
                    }
                    (Err(_), Err(FrameError::Undecodable(_))) => return,
                    (expected, next) => panic!("{expected:?} became {next:?}"),
                }
                rest = behind;
            }
            (_, next) => {
                let cut = matches!(next, Err(FrameError::Truncated { len }) if len == rest.len());
                assert!(cut, "{} bytes of a frame became {next:?}", rest.len());
                return;
            }
        }
    }
}

fn frame_of<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = write_frame(&mut bytes, message).now_or_never();
    let written = written.expect("memory never makes anyone wait");
    written.expect("no message here is longer than a frame can be");
    bytes
}

/// What arrives of a message that is sent.
fn sent<T: Serialize + DeserializeOwned>(message: &T, cuts: [u8; 2]) -> T {
    let bytes = frame_of(message);
    let mut frames = frames(&bytes, cuts);
    let arrived = next(&mut frames).expect("what was sent can be read");
    let end = next::<T>(&mut frames);
    assert!(matches!(end, Ok(None)), "more than one message arrived");
    arrived.expect("what was sent arrives")
}

/// Every message arrives as it was sent, whole or not at all.
fn send<T>(message: &T, cuts: [u8; 2], cut_at: usize)
where
    T: Serialize + DeserializeOwned + PartialEq + fmt::Debug,
{
    assert_eq!(sent(message, cuts), *message);
    let mut bytes = frame_of(message);
    bytes.truncate(cut_at % bytes.len());
    let arrived = next::<T>(&mut frames(&bytes, cuts));
    match arrived {
        Ok(None) => assert!(bytes.is_empty(), "half a message vanished"),
        Err(FrameError::Truncated { len }) => assert_eq!(len, bytes.len()),
        other => panic!("half a message became {other:?}"),
    }
}

fn send_any(source: &mut Source<'_>, cuts: [u8; 2]) {
    let cut_at = usize::from(u16::from_be_bytes(source.bytes()));
    let op = source.u64();
    match source.byte() % 8 {
        0 => {
            let hello = Hello {
                worker: source.u32(),
                incarnation: source.u32(),
                listens: source.flag(),
            };
            send(&hello, cuts, cut_at);
        }
        1 => {
            let notice = match source.byte() % 3 {
                0 => Notice::Listening,
                1 => Notice::Ping,
                _ => Notice::Due(source.job_type()),
            };
            send(&notice, cuts, cut_at);
        }
        2 => {
            let body = Body::Commit {
                finish: source.finish(),
                children: source.several(4, Source::new_job),
            };
            send(&Request { op, body }, cuts, cut_at);
        }
        3 => {
            let body = Body::Announce(source.several(4, Source::job_type).into_iter().collect());
            send(&Request { op, body }, cuts, cut_at);
        }
        4 | 5 => {
            let body = Body::Execute(source.command());
            send(&Request { op, body }, cuts, cut_at);
        }
        _ => {
            let result = result(source);
            send(&Response { op, result }, cuts, cut_at);
        }
    }
}

fn result(source: &mut Source<'_>) -> Result<Option<Reply>, StoreError> {
    let written = |source: &mut Source<'_>| *source.pick(&[Written::Applied, Written::Stale]);
    Ok(Some(match source.byte() % 9 {
        0 => return Ok(None),
        1 => return Err(source.store_error()),
        2 => Reply::Spawned(source.several(8, |source| {
            let existing = source.job_id();
            *source.pick(&[
                Spawned::Created,
                Spawned::DuplicateId,
                Spawned::DuplicateUniqueType(existing),
            ])
        })),
        3 => Reply::Claimed(Claimed {
            now: source.timestamp(),
            jobs: source.several(4, Source::claimed_job),
            left: source.several(3, Source::left),
            next_due: source.several(4, |source| (source.job_type(), source.timestamp())),
        }),
        4 => Reply::Finished(source.several(8, written)),
        5 => Reply::Heartbeat(source.several(8, written)),
        6 if source.flag() => Reply::Held(written(source)),
        6 => Reply::Checkpointed(written(source)),
        7 => Reply::Reclaimed(source.several(4, |source| Reclaimed {
            run: source.run(),
            job_type: source.job_type(),
            attempt: source.u32(),
            end: source.run_end(),
        })),
        _ => Reply::Found(source.maybe(|source| Box::new(source.snapshot()))),
    }))
}
