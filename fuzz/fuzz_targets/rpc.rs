//! Fuzzes `job_fuzz::rpc`; built without libFuzzer, replays the files it is given.
#![cfg_attr(fuzzing, no_main)]

job_fuzz::binary!(rpc);
