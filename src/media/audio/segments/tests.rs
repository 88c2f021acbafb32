use std::io::Cursor;
use std::path::Path;

use super::*;
use crate::media::audio::SoundOptions;

/// The word of the fixtures, at 16 kHz (seconds 2.7549 to 3.1536 of `16k.wav`).
fn word() -> Vec<i16> {
    let file =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sounds/16k.wav"));
    let samples = file.unwrap()[44..]
        .chunks_exact(2)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect::<Vec<i16>>();
    samples[44_078..50_458].to_vec()
}

fn sound(samples: &[i16]) -> Sound {
    let mut bytes =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3E\0\0\0\x7D\0\0\x02\0\x10\0data"
            .to_vec();
    bytes.extend((samples.len() as u32 * 2).to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    Sound::read(Path::new("-"), Cursor::new(bytes), &SoundOptions::default()).unwrap()
}

fn all(sound: Sound, longest: f64, detect: bool) -> Vec<Segment> {
    let mut segments = Segments::new(sound, SegmentOptions { longest, detect });
    std::iter::from_fn(|| segments.next_segment().unwrap()).collect()
}

/// Words with pauses of so many samples between them, and where the words are.
fn speech(pauses: &[usize]) -> (Vec<i16>, Vec<(f64, f64)>) {
    let word = word();
    let (mut samples, mut times) = (vec![0; 8000], Vec::new());
    for pause in pauses {
        times.push((seconds(samples.len()), seconds(samples.len() + word.len())));
        samples.extend(&word);
        samples.extend(vec![0; *pause]);
    }
    (samples, times)
}

fn near(found: (f64, f64), wanted: (f64, f64)) -> bool {
    (found.0 - wanted.0).abs() <= 0.1 && (found.1 - wanted.1).abs() <= 0.1
}

#[test]
fn pauses_of_half_a_second_separate_stretches() {
    let (samples, words) = speech(&[8000 + 800, 8000 - 1600, 9600, 8000]);
    let found = all(sound(&samples), 30.0, true);
    assert_eq!(found.len(), 1);
    let wanted = [words[0], (words[1].0, words[2].1), words[3]];
    assert_eq!(found[0].speech.len(), 3, "{:?}, not {wanted:?}", found[0].speech);
    assert!(found[0].speech.iter().zip(wanted).all(|(found, wanted)| near(*found, wanted)));
    assert!((0.5..=1.0).contains(&found[0].score), "{}", found[0].score);
}

#[test]
fn clips_hold_their_margins_and_nothing_twice() {
    let (samples, words) = speech(&[12_000; 6]);
    let found = all(sound(&samples), 2.5, true);
    assert!(found.len() >= 3 && found.len() < words.len(), "{}", found.len());
    let mut end = 0.0;
    for segment in &found {
        let length = seconds(segment.samples.len());
        assert!(length <= 2.5);
        assert!((length - (segment.end - segment.start) - 0.4).abs() < 1e-3);
        let begin = segment.start - 0.2;
        assert!(begin >= end);
        end = begin + length;
        let at = (begin * f64::from(RATE)).round() as usize;
        let wanted = samples[at..at + segment.samples.len()].iter();
        assert!(segment.samples.iter().zip(wanted).all(|(a, b)| *a == f32::from(*b) / 32768.0));
    }
    let stretches: Vec<(f64, f64)> = found.into_iter().flat_map(|s| s.speech).collect();
    assert_eq!(stretches.len(), words.len());
}

#[test]
fn long_speech_is_cut_where_it_is_quiet_and_nothing_is_lost() {
    let (samples, _) = speech(&[1600; 30]);
    let found = all(sound(&samples), 3.0, true);
    assert!(found.len() > 4);
    for pair in found.windows(2) {
        assert!(pair[0].samples.len() <= 48_000);
        // one goes on where the other ends
        assert!((pair[0].end - pair[1].start).abs() < 1e-9, "{} {}", pair[0].end, pair[1].start);
        let last = &pair[0].samples[pair[0].samples.len() - 160..];
        assert!(last.iter().all(|sample| sample.abs() < 0.01));
    }
}

#[test]
fn silence_and_noise_are_no_speech() {
    assert!(all(sound(&[]), 30.0, true).is_empty());
    assert!(all(sound(&[0; 100_000]), 30.0, true).is_empty());
    let mut state = 1u32;
    let noise: Vec<i16> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 20) as i16 - 2048
    })
    .take(160_000)
    .collect();
    assert!(all(sound(&noise), 30.0, true).is_empty());
}

#[test]
fn without_a_detector_cuts_are_by_length() {
    let found = all(sound(&[7; 40_000]), 1.0, false);
    let lengths: Vec<usize> = found.iter().map(|segment| segment.samples.len()).collect();
    assert_eq!(lengths, [16_000, 16_000, 8000]);
    assert_eq!((found[2].start, found[2].end, found[2].score), (2.0, 2.5, 1.0));
}
