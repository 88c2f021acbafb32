//! Sounds as a user has them: fixtures of every kind (scripts/fixtures_sounds.py), headers that
//! lie, files that are cut, and files that are no sounds.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use gemma3n::media::audio::{
    Channel, RATE, Segment, SegmentOptions, Segments, Sound, SoundOptions,
};
use gemma3n::media::{Error, Fault};
use rand::{Rng, SeedableRng};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sounds")
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(fixtures().join(name)).unwrap()
}

fn open(name: &str, options: &SoundOptions) -> Sound {
    Sound::open(&fixtures().join(name), options).unwrap_or_else(|error| panic!("{error}"))
}

fn stream(bytes: Vec<u8>) -> Result<Sound, Error> {
    Sound::read(Path::new("-"), Cursor::new(bytes), &SoundOptions::default())
}

/// All samples, and the error at the end.
fn drained(sound: &mut Sound) -> (Vec<f32>, Option<Error>) {
    let mut all = Vec::new();
    loop {
        match sound.next_piece() {
            Ok(Some(piece)) => all.extend(piece),
            Ok(None) => return (all, None),
            Err(error) => {
                assert!(matches!(sound.next_piece(), Ok(None)), "nothing after an error");
                return (all, Some(error));
            }
        }
    }
}

fn samples(name: &str, options: &SoundOptions) -> Vec<f32> {
    let (all, error) = drained(&mut open(name, options));
    assert!(error.is_none(), "{name}: {}", error.unwrap());
    all
}

fn segments(sound: Sound, longest: f64) -> Vec<Segment> {
    let mut segments = Segments::new(sound, SegmentOptions { longest, detect: true });
    let mut all = Vec::new();
    while let Some(segment) = segments.next_segment().unwrap() {
        all.push(segment);
    }
    all
}

fn expected() -> Value {
    serde_json::from_slice(&bytes("speech.json")).unwrap()
}

/// Seconds and stretches of speech of a source.
fn truth(source: &str) -> (f64, Vec<(f64, f64)>) {
    let source = &expected()["sources"][source];
    let time = |value: &Value| value.as_f64().unwrap();
    let speech = source["speech"].as_array().unwrap();
    (time(&source["seconds"]), speech.iter().map(|s| (time(&s[0]), time(&s[1]))).collect())
}

/// A WAV file of one channel at 16 kHz with the sizes that are given.
fn wav(format: u16, bits: u16, data: &[u8], riff: u32, size: u32) -> Vec<u8> {
    let mut file = b"RIFF".to_vec();
    file.extend(riff.to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0");
    file.extend(format.to_le_bytes());
    file.extend(1u16.to_le_bytes());
    file.extend(RATE.to_le_bytes());
    file.extend((RATE * u32::from(bits / 8)).to_le_bytes());
    file.extend((bits / 8).to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(b"data");
    file.extend(size.to_le_bytes());
    file.extend(data);
    file
}

#[test]
fn files_of_every_kind_are_as_long_as_they_are_and_hold_their_speech() {
    for (name, source) in expected()["files"].as_object().unwrap() {
        let (seconds, speech) = truth(source.as_str().unwrap());
        let all = samples(name, &SoundOptions::default());
        let length = all.len() as f64 / f64::from(RATE);
        // the last compressed frame is filled up
        let exact = name.ends_with("flac") || name.ends_with("wav") && name != "adpcm.wav";
        let tolerance = if exact { 0.001 } else { 0.1 };
        assert!((length - seconds).abs() <= tolerance, "{name}: {length} s, not {seconds}");
        let duration = open(name, &SoundOptions::default()).duration();
        assert!(duration.is_none_or(|d| (d - length).abs() < 0.1), "{name}: {duration:?}");
        // half of the stereo file is another sound
        let channel = if name == "stereo.flac" { Channel::Left } else { Channel::Mix };
        let sound = open(name, &SoundOptions { channel, ..SoundOptions::default() });
        let found: Vec<(f64, f64)> =
            segments(sound, 30.0).into_iter().flat_map(|segment| segment.speech).collect();
        assert_eq!(found.len(), speech.len(), "{name}: {found:?}, not {speech:?}");
        for (found, speech) in found.iter().zip(&speech) {
            let error = (found.0 - speech.0).abs().max((found.1 - speech.1).abs());
            assert!(error <= 0.1, "{name}: {found:?}, not {speech:?}");
        }
    }
}

#[test]
fn compressed_speech_is_the_speech() {
    let exact = samples("16k.wav", &SoundOptions::default());
    for name in ["speech.mp3", "speech.ogg", "speech.m4a"] {
        let other = samples(name, &SoundOptions::default());
        let both = || exact.iter().zip(&other);
        let product: f32 = both().map(|(a, b)| a * b).sum();
        let norms =
            both().map(|(a, _)| a * a).sum::<f32>() * both().map(|(_, b)| b * b).sum::<f32>();
        let likeness = product / norms.sqrt();
        assert!(likeness > 0.9, "{name}: {likeness}");
    }
}

#[test]
fn samples_of_16_khz_pass_exactly() {
    let data: Vec<i16> = vec![0, 1, -1, 32767, -32768, 12345, -2];
    let bytes: Vec<u8> = data.iter().flat_map(|s| s.to_le_bytes()).collect();
    let size = bytes.len() as u32;
    let (all, _) = drained(&mut stream(wav(1, 16, &bytes, 36 + size, size)).unwrap());
    let wanted: Vec<f32> = data.iter().map(|s| f32::from(*s) / 32768.0).collect();
    assert_eq!(all, wanted);
}

#[test]
fn sizes_are_upper_bounds() {
    let data: Vec<u8> = (0..2000i16).flat_map(i16::to_le_bytes).collect();
    let honest = data.len() as u32;
    let count = |riff, size, data: &[u8]| {
        let mut sound = stream(wav(1, 16, data, riff, size)).unwrap();
        let (all, error) = drained(&mut sound);
        assert!(error.is_none());
        all.len()
    };
    for lie in [0, u32::MAX, 0x7FFF_F000, 0x7FFF_FFFF, honest + 1000, honest] {
        assert_eq!(count(0, lie, &data), 2000, "{lie:#x}");
    }
    assert_eq!(count(0, honest - 200, &data), 1900);
    // half a sample is none
    assert_eq!(count(0, u32::MAX, &data[..data.len() - 1]), 1999);
}

#[test]
fn channels_are_chosen() {
    let channel = |channel| {
        let options = SoundOptions { channel, ..SoundOptions::default() };
        drained(&mut open("stereo.flac", &options)).0
    };
    let (left, right) = (channel(Channel::Left), channel(Channel::Right));
    let mix = channel(Channel::Mix);
    assert_eq!(right, channel(Channel::Number(2)));
    for (index, mixed) in mix.iter().enumerate() {
        assert!((mixed - (left[index] + right[index]) / 2.0).abs() < 1e-5);
    }
    let options = SoundOptions { channel: Channel::Number(3), ..SoundOptions::default() };
    let error = Sound::open(&fixtures().join("stereo.flac"), &options).err().unwrap();
    assert!(error.to_string().ends_with("stereo.flac: has no channel 3: there are 2"), "{error}");
    let options = SoundOptions { channel: Channel::Right, ..SoundOptions::default() };
    let error = Sound::open(&fixtures().join("16k.wav"), &options).err().unwrap();
    assert!(error.to_string().ends_with("16k.wav: has no channel 2: there is 1"), "{error}");
}

#[test]
fn selections_are_exact_to_a_sample() {
    for name in ["16k.wav", "speech.mkv", "alac.m4a", "adpcm.wav"] {
        let all = samples(name, &SoundOptions::default());
        let selected =
            SoundOptions { offset: 0.25, duration: Some(0.5), ..SoundOptions::default() };
        let part = samples(name, &selected);
        assert_eq!(part, all[4000..12000], "{name}");
        let beyond = SoundOptions { offset: 1e9, ..SoundOptions::default() };
        assert!(samples(name, &beyond).is_empty(), "{name}");
    }
    // a seek of the container
    let left = SoundOptions { channel: Channel::Left, ..SoundOptions::default() };
    let all = samples("stereo.flac", &left);
    let part = samples("stereo.flac", &SoundOptions { offset: 0.5, ..left });
    let error = part.iter().zip(&all[8000..]).skip(600).map(|(a, b)| (a - b).abs());
    assert!(part.len().abs_diff(all.len() - 8000) <= 1 && error.fold(0.0, f32::max) < 1e-3);
}

#[test]
fn what_is_no_sound_is_named() {
    let told = |bytes: &[u8]| stream(bytes.to_vec()).err().unwrap().to_string();
    assert_eq!(told(b""), "-: empty file");
    assert_eq!(told(b"Hello, world\n"), "-: not a sound that can be read: a text file");
    assert_eq!(told(b"<!DOCTYPE html><p>"), "-: not a sound that can be read: an HTML page");
    assert_eq!(told(b"\x89PNG\r\n\x1a\n"), "-: not a sound that can be read: a PNG picture");
    assert_eq!(
        told(b"\x01\x02\x03\x04\x05"),
        "-: not a sound that can be read: starts with the bytes 01 02 03 04"
    );
    let file = |name: &str| Sound::open(&fixtures().join(name), &SoundOptions::default()).err();
    let mute = file("mute.mp4").unwrap();
    assert!(mute.to_string().ends_with("mute.mp4: has no sound"), "{mute}");
    let opus = file("opus.ogg").unwrap();
    assert!(opus.to_string().ends_with("opus.ogg: Opus sounds cannot be read"), "{opus}");
    assert!(opus.hint().unwrap().contains("ffmpeg -i"));
    let piped = stream(bytes("video.mp4")).err().unwrap();
    assert_eq!(
        piped.to_string(),
        "-: not a sound that can be read from a pipe: its index is at its end"
    );
    let folder = Sound::open(&fixtures(), &SoundOptions::default()).err().unwrap();
    assert!(matches!(folder.fault, Fault::Directory));
}

#[test]
fn a_sample_that_is_no_number_is_told_after_those_before_it() {
    for bad in [f32::NAN, f32::INFINITY] {
        let data: Vec<u8> =
            [0.5f32, -2.0, bad, 0.25].iter().flat_map(|s| s.to_le_bytes()).collect();
        let (all, error) = drained(&mut stream(wav(3, 32, &data, 0, 16)).unwrap());
        assert_eq!(all, [0.5, -2.0]);
        assert_eq!(error.unwrap().to_string(), "-: sample 2 is not a number");
    }
    let data: Vec<u8> = [0.5f32, 1e38].iter().flat_map(|s| s.to_le_bytes()).collect();
    let (all, error) = drained(&mut stream(wav(3, 32, &data, 0, 8)).unwrap());
    assert_eq!(all, [0.5]);
    assert_eq!(error.unwrap().to_string(), "-: sample 1 is too large for a sound");
}

#[test]
fn absurd_rates_are_refused() {
    for rate in [0u32, 10, 768_001, u32::MAX] {
        let mut file = wav(1, 16, &[0; 100], 136, 100);
        file[24..28].copy_from_slice(&rate.to_le_bytes());
        file[28..32].copy_from_slice(&rate.wrapping_mul(2).to_le_bytes());
        assert!(stream(file).is_err(), "{rate}");
    }
}

/// Reads what there is; the count of samples.
fn read_all(bytes: Vec<u8>) -> usize {
    stream(bytes).map_or(0, |mut sound| drained(&mut sound).0.len())
}

#[test]
fn a_cut_file_is_an_error_or_shorter() {
    for name in ["8bit.wav", "adpcm.wav", "stereo.flac", "speech.mp3", "speech.ogg", "speech.m4a"] {
        let whole = bytes(name);
        let count = read_all(whole.clone());
        // every byte of the headers, then some
        let step = (whole.len() / 150).max(1);
        let cuts = (0..whole.len().min(400)).chain((400..whole.len()).step_by(step));
        for cut in cuts {
            assert!(read_all(whole[..cut].to_vec()) <= count, "{name} cut at {cut}");
        }
    }
}

#[test]
fn broken_files_end_in_errors_or_noise() {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    for entry in fs::read_dir(fixtures()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let whole = bytes(&name);
        for _ in 0..40 {
            let mut broken = whole.clone();
            for _ in 0..random.random_range(1..6) {
                let header = random.random_bool(0.7);
                let end = if header { broken.len().min(300) } else { broken.len() };
                let at = random.random_range(0..end);
                broken[at] = random.random();
            }
            read_all(broken);
        }
    }
}

#[test]
fn live_speech_is_given_out_before_the_stream_ends() {
    let mut data = bytes("16k.wav")[44..].to_vec();
    data.extend(vec![0; 2 * 16_000 * 2]);
    let spoken = data.len() as u64 / 2;
    data.extend(vec![0; 2 * 16_000 * 60]);
    let sound = stream(wav(1, 16, &data, 0, u32::MAX)).unwrap();
    let options = SegmentOptions { longest: 30.0, detect: true };
    let mut segments = Segments::new(sound, options);
    let segment = segments.next_segment().unwrap().unwrap();
    assert_eq!(segment.speech.len(), 3);
    assert!(segments.position() <= spoken as f64 / f64::from(RATE), "{}", segments.position());
    assert!(segments.next_segment().unwrap().is_none());
}
