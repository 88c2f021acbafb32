//! What conversations share: the file, the model, the tokenizer, the chat template.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::error::Error;
use super::media::SoftTokens;
use super::prompt::Language;
use super::sampler::SamplerOptions;
use super::template::{ChatTemplate, GEMMA, SpecialTexts};
use super::towers::{TowerOptions, Towers};
use super::vocabulary::vocabulary;
use crate::gguf::{self, Gguf, Metadata, Value};
use crate::media::audio::{RATE, Sound, SoundOptions};
use crate::media::image;
use crate::model::slice::Slice;
use crate::model::text::TextModel;
use crate::tokenizer::{TokenId, Tokenizer};

/// Where a model's bytes are.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// A GGUF file, or the first part of a split one.
    File(PathBuf),
    /// A GGUF inside the program (64-byte aligned), and the name for messages.
    Static {
        /// What messages call it.
        name: &'static str,
        /// The whole file.
        bytes: &'static [u8],
    },
}

impl ModelSource {
    /// Opens the file; `mmap` maps it, where it is one, instead of reading it.
    ///
    /// # Errors
    /// A file that cannot be read or is no sound GGUF.
    pub fn open(&self, mmap: bool) -> Result<Gguf, gguf::Error> {
        match self {
            Self::File(path) if mmap => Gguf::open(path),
            Self::File(path) => Gguf::read(path),
            Self::Static { name, bytes } => Gguf::from_static(name, bytes),
        }
    }

    /// The file's path, or the built-in model's name.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Static { name, .. } => Path::new(name),
        }
    }
}

/// How to open a model.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The model.
    pub model: ModelSource,
    /// The towers for pictures and sounds.
    pub towers: Option<ModelSource>,
    /// How towers run.
    pub tower_options: TowerOptions,
    /// A chat template (Jinja) to be used instead of the file's own.
    pub template: Option<PathBuf>,
    /// A smaller model inside the file's, in its place (`--slice`).
    pub slice: Option<Slice>,
    /// False reads the file into memory (`--no-mmap`).
    pub mmap: bool,
    /// Keep the weights in memory, the per-layer table excepted (`--mlock`).
    pub mlock: bool,
}

/// A picture as the model sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its soft tokens.
    pub media: Arc<SoftTokens>,
    /// Pixels of the picture itself, upright.
    pub width: u32,
    /// As above.
    pub height: u32,
}

/// A sound as the model hears it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its soft tokens.
    pub media: Arc<SoftTokens>,
    /// Seconds of the whole sound. `None`: more than was heard; where its end is, its file does not
    /// say, and nobody looked for it.
    pub seconds: Option<f64>,
    /// Seconds that the model hears, at most those of [`Towers::clip`].
    pub heard: f64,
}

/// Where the time of opening went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OpenTimings {
    /// Mapping and parsing of the header.
    pub file: Duration,
    /// Checks of the weights.
    pub model: Duration,
    /// Vocabulary and tokenizer.
    pub tokenizer: Duration,
    /// Chat template.
    pub template: Duration,
}

impl OpenTimings {
    /// The sum.
    pub fn total(&self) -> Duration {
        self.file + self.model + self.tokenizer + self.template
    }
}

/// An opened model, shared by conversations.
pub struct Engine {
    gguf: Arc<Gguf>,
    model: Arc<TextModel>,
    language: Arc<Language>,
    towers: Option<Towers>,
    name: String,
    sampling: SamplerOptions,
    fingerprint: OnceLock<String>,
    timings: OpenTimings,
}

impl Engine {
    /// Opens a model: file, weights, tokenizer, template, defaults.
    ///
    /// # Errors
    /// A file that cannot be read or is not a sound Gemma 3n text model; a vocabulary without
    /// needed tokens; a template that does not parse.
    pub fn open(options: &EngineOptions) -> Result<Arc<Self>, Error> {
        let mut timings = OpenTimings::default();
        let gguf = Arc::new(timed(&mut timings.file, || options.model.open(options.mmap))?);
        if options.mlock {
            gguf.lock(&["per_layer_token_embd.weight"])?;
        }
        let model =
            timed(&mut timings.model, || TextModel::open_slice(&gguf, options.slice.as_ref()))?;
        let tokenizer = timed(&mut timings.tokenizer, || open_tokenizer(&gguf))?;
        let language = timed(&mut timings.template, || {
            let template = open_template(&gguf, &tokenizer, options.template.as_deref())?;
            Ok::<_, Error>(Language::new(tokenizer, template)?)
        })?;
        let towers = match &options.towers {
            Some(source) => {
                let file = timed(&mut timings.file, || source.open(options.mmap))?;
                Some(Towers::open(file, model.config().embedding, options.tower_options)?)
            }
            None => None,
        };
        let sampling = sampling_defaults(gguf.metadata())?;
        sampling
            .validate()
            .map_err(|error| Error::SamplingDefaults { file: gguf.path().to_path_buf(), error })?;
        let stem = gguf.path().file_stem().unwrap_or_default().to_string_lossy();
        let name = gguf.metadata().str("general.name")?.filter(|name| !name.is_empty());
        Ok(Arc::new(Self {
            name: name.unwrap_or(&stem).to_owned(),
            language: Arc::new(language),
            towers,
            gguf,
            model,
            sampling,
            fingerprint: OnceLock::new(),
            timings,
        }))
    }

    /// The open file.
    pub fn gguf(&self) -> &Arc<Gguf> {
        &self.gguf
    }

    /// The model's weights.
    pub fn model(&self) -> &Arc<TextModel> {
        &self.model
    }

    /// The towers, if there are any.
    pub fn towers(&self) -> Option<&Towers> {
        self.towers.as_ref()
    }

    /// What the model sees of a picture: a file, or `-` for standard input. `side` in pixels; the
    /// tower's own size where none is asked for.
    ///
    /// # Errors
    /// No towers, a picture that can't be read, or what [`Towers::see`] meets.
    pub fn see(&self, file: &Path, side: Option<usize>) -> Result<Seen, Error> {
        let towers = self.towers.as_ref().ok_or(Error::NoTowers)?;
        let side = match side {
            Some(side) => side,
            None => towers.image_size()?,
        };
        towers.check_side(side)?;
        let picture = match file.as_os_str() == "-" {
            true => image::read(Path::new(STDIN), io::stdin().lock())?,
            false => image::open(file)?,
        };
        let media = towers.see(&own_name(file), &picture.squashed(side).values(), side)?;
        Ok(Seen { media: Arc::new(media), width: picture.width, height: picture.height })
    }

    /// Seconds of the longest clip that the model hears at once.
    ///
    /// # Errors
    /// No towers, or none for sounds.
    pub fn clip_seconds(&self) -> Result<f64, Error> {
        let towers = self.towers.as_ref().ok_or(Error::NoTowers)?;
        Ok(towers.clip()? as f64 / f64::from(RATE))
    }

    /// What the model hears of a sound: a file, or `-` for standard input. No more of it is read than
    /// the model hears.
    ///
    /// # Errors
    /// No towers, a sound that can't be read, or what [`Towers::hear`] meets.
    pub fn hear(&self, file: &Path) -> Result<Heard, Error> {
        let towers = self.towers.as_ref().ok_or(Error::NoTowers)?;
        let longest = towers.clip()?;
        let stdin = file.as_os_str() == "-";
        let sound = match stdin {
            true => Sound::read(Path::new(STDIN), io::stdin(), &SoundOptions::default())?,
            false => Sound::open(file, &SoundOptions::default())?,
        };
        let clip = Clip::read(sound, longest)?;
        let media = towers.hear(&own_name(file), &clip.samples).map_err(|error| match error {
            // Errors name the file as it was given.
            Error::TooShort { seconds, .. } if !stdin => {
                Error::TooShort { name: file.display().to_string(), seconds }
            }
            other => other,
        })?;
        let heard = clip.samples.len() as f64 / f64::from(RATE);
        Ok(Heard { media: Arc::new(media), seconds: clip.seconds, heard })
    }

    /// What the model hears of samples at 16 kHz; `name` is what messages call them.
    ///
    /// # Errors
    /// No towers, or what [`Towers::hear`] meets.
    pub fn hear_samples(&self, name: &str, samples: &[f32]) -> Result<Arc<SoftTokens>, Error> {
        let towers = self.towers.as_ref().ok_or(Error::NoTowers)?;
        Ok(Arc::new(towers.hear(name, samples)?))
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.language.tokenizer()
    }

    /// Tokenizer and template.
    pub(super) fn language(&self) -> &Arc<Language> {
        &self.language
    }

    /// The file's path, or the built-in model's name.
    pub fn path(&self) -> &Path {
        self.gguf.path()
    }

    /// `general.name`, else the file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the header and both ends of every tensor, hexadecimal. Made when first
    /// asked for.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| self.gguf.fingerprint())
    }

    /// What the slice in use is called.
    pub fn slice(&self) -> Option<String> {
        self.model.slice()
    }

    /// Positions the model was trained for.
    pub fn trained_context(&self) -> usize {
        self.model.config().context_length
    }

    /// Sampling defaults: the file's `general.sampling.*`, else Gemma's own (temperature 1,
    /// top-k 64, top-p 0.95). The seed is left open.
    pub fn sampling_defaults(&self) -> SamplerOptions {
        self.sampling.clone()
    }

    /// Where the chat template comes from, in words: the file, `--template PATH`, or
    /// Gemma's own.
    pub fn template_source(&self) -> &str {
        self.language.template().origin()
    }

    /// Where the time of opening went.
    pub fn timings(&self) -> OpenTimings {
        self.timings
    }
}

/// What errors call standard input.
const STDIN: &str = "standard input";

/// What messages call a picture or sound: its file's name.
fn own_name(file: &Path) -> String {
    match file.as_os_str() == "-" {
        true => STDIN.to_owned(),
        false => file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned(),
    }
}

/// The beginning of a sound, as much as the model hears.
struct Clip {
    samples: Vec<f32>,
    /// Of the whole sound, where that is known.
    seconds: Option<f64>,
}

impl Clip {
    /// At most so many samples.
    fn read(mut sound: Sound, most: usize) -> Result<Self, Error> {
        let told = sound.duration();
        let mut samples = Vec::new();
        while let Some(piece) = sound.next_piece()? {
            samples.extend_from_slice(&piece);
            if samples.len() > most {
                samples.truncate(most);
                // A header may say less than there is.
                let heard = most as f64 / f64::from(RATE);
                let seconds = told.filter(|&seconds| seconds > heard);
                return Ok(Self { samples, seconds });
            }
        }
        let seconds = Some(samples.len() as f64 / f64::from(RATE));
        Ok(Self { samples, seconds })
    }
}

fn timed<T>(time: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *time += started.elapsed();
    result
}

fn open_tokenizer(gguf: &Gguf) -> Result<Tokenizer, Error> {
    Ok(Tokenizer::new(vocabulary(gguf)?).map_err(|fault| {
        super::vocabulary::VocabularyError::Pieces { file: gguf.path().to_path_buf(), fault }
    })?)
}

/// The template named by the user, else the file's, else Gemma's own.
fn open_template(
    gguf: &Gguf,
    tokenizer: &Tokenizer,
    chosen: Option<&Path>,
) -> Result<ChatTemplate, Error> {
    let specials = special_texts(tokenizer);
    if let Some(path) = chosen {
        let source = std::fs::read(path)
            .map_err(|error| Error::TemplateFile { file: path.to_path_buf(), error })?;
        return Ok(ChatTemplate::new(&path.display().to_string(), &source, specials)?);
    }
    for key in ["tokenizer.chat_template", "tokenizer.chat_template.default"] {
        if let Some(Value::String(source)) = gguf.metadata().get(key) {
            let origin = format!("{}: {key}", gguf.path().display());
            return Ok(ChatTemplate::new(&origin, source, specials)?);
        }
    }
    Ok(ChatTemplate::new("Gemma's own template", GEMMA.as_bytes(), specials)?)
}

/// What templates may ask for: `bos_token` and the like.
fn special_texts(tokenizer: &Tokenizer) -> SpecialTexts {
    let text = |id: Option<TokenId>| {
        id.map(|id| String::from_utf8_lossy(tokenizer.piece(id)).into_owned()).unwrap_or_default()
    };
    let vocabulary = tokenizer.vocabulary();
    SpecialTexts {
        bos: text(Some(tokenizer.bos())),
        eos: text(tokenizer.id_of("<eos>")),
        unk: text(vocabulary.unk()),
        pad: text(vocabulary.pad()),
    }
}

/// Gemma's own, and over them what the file says.
fn sampling_defaults(metadata: &Metadata) -> Result<SamplerOptions, Error> {
    let key = |name: &str| format!("general.sampling.{name}");
    let float = |name: &str| metadata.f32(&key(name));
    let count = |name: &str| metadata.u32(&key(name)).map(|n| n.map(|n| n as usize));
    let gemma = SamplerOptions::default();
    Ok(SamplerOptions {
        temperature: float("temp")?.unwrap_or(gemma.temperature),
        top_k: count("top_k")?.unwrap_or(gemma.top_k),
        top_p: float("top_p")?.unwrap_or(gemma.top_p),
        min_p: float("min_p")?.unwrap_or(gemma.min_p),
        repeat_penalty: float("penalty_repeat")?.unwrap_or(gemma.repeat_penalty),
        repeat_last_n: count("penalty_last_n")?.unwrap_or(gemma.repeat_last_n),
        seed: gemma.seed,
    })
}
