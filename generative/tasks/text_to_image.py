"""Pictures of what a text says: the task of Stable Diffusion's pipelines."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np

from ...core.errors import ConfigError, DataError, HubError
from ...core.insight.progress import Progress, progress
from ...core.ops.shape import concat
from ...core.random import Generator
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.loading import Loaded
from ...text.tokens.clip import ClipTokenizer
from ..pipelines.decoding import scaled
from ..pipelines.estimates import Cost, refuse_too_large, unet_memory, unet_operations
from ..pipelines.latent import (
    Condition,
    Guidance,
    Painting,
    begin_of,
    guidance_waves,
    guided,
    latent_size,
    picture_latents,
)
from ..pipelines.pictures import mask_array, opened, picture_array
from ..pipelines.prompts import (
    FOLDER,
    Prompts,
    checked_texts,
    published_tokenizer,
    tokenizer_of,
)
from ..pipelines.sampling import (
    Callback,
    check_count,
    check_settings,
    first_noise,
    generators_of,
    seeds_of,
    walk,
)
from ..schedulers import LCMScheduler, Scheduler
from .latent import LatentTask, check_output, files_beside

STEPS, STEPS_LCM = 50, 4
GUIDANCE, GUIDANCE_LCM = 7.5, 8.5
STRENGTH = 0.8


class TextToImage(LatentTask):
    """Makes pictures of what a text says: `model("a cat on a roof", seed=0)[0]`.

    Attributes:
        module, scheduler, card, report, slicing, tiling, compile: see `LatentTask`.
        prompts: the tokenizer and the text encoder.
        adapters: LoRA adapters in effect, by name; see `load_lora`.
    """

    task = "text-to-image"
    guidance = GUIDANCE  # unless another is given
    strength = STRENGTH

    def __init__(self, *args: Any, prompts: Prompts, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.prompts = prompts
        from ..lora import Adapters

        names = ("unet", "text_encoder", "text_encoder_2")
        here = {name: getattr(self.module, name, None) for name in names}
        self.adapters = Adapters({name: part for name, part in here.items() if part is not None})

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of a pipeline that `bt.load` has loaded; of two encoders, its own."""
        if cls is TextToImage and hasattr(loaded.module, "text_encoder_2"):
            from .text_to_image_xl import TextToImageXL

            return cast("Self", TextToImageXL.from_loaded(loaded))
        return super().from_loaded(loaded)

    @classmethod
    def _arguments(cls, loaded: Loaded) -> dict[str, Any]:
        encoder = loaded.module.text_encoder
        length = encoder.config.max_position_embeddings
        folder = None if loaded.folder is None else loaded.folder / FOLDER
        found = tokenizer_of(folder, length)
        if found is None and not loaded.published:  # a single file
            found = _published(encoder, fetch=False)
        return {
            **super()._arguments(loaded),
            "prompts": Prompts(encoder, *(found or ())),
            "beside": files_beside(loaded.folder, (FOLDER,)),
        }

    # -- pictures ------------------------------------------------------------------------------

    def __call__(
        self,
        prompt: str | Sequence[str],
        count: int = 1,
        *,
        negative: str | Sequence[str] | None = None,
        seed: int | Sequence[int] | None = None,
        steps: int | Sequence[float] | None = None,
        guidance: float | None = None,
        rescale: float = 0.0,
        scheduler: str | Scheduler | None = None,
        size: int | tuple[int, int] | None = None,
        init: Any = None,
        mask: Any = None,
        strength: float | None = None,
        latents: Any = None,
        clip_skip: int = 0,
        truncate: bool = False,
        callback: Callback | None = None,
        batch_size: int = 1,
        output: str = "pictures",
        **settings: Any,
    ) -> Any:
        """Pictures of a text, or of each of several texts.

        Args:
            prompt: what the pictures show.
            count: pictures of each text.
            negative: what they are not to show; one for all texts, or one for each.
            seed: of the first picture; the second has seed + 1, and so on. Or one for each. A
                seed gives the same picture alone and in any batch.
            steps: from noise to picture; 50 unless given, and 4 with LCM. Or the timesteps one by
                one, the noisiest first, where the scheduler takes them.
            guidance: how closely the text is followed; 1 is not at all more than the network
                does by itself, which takes half the time.
            rescale: see `pipelines.latent.Guidance`.
            scheduler: another one, such as "dpm++" (`generative.schedulers.SHORT`).
            size: height and width; that of the training unless given.
            init: a picture to begin with, as path, Pillow image or array.
            mask: with `init`: bright where it is to be made anew.
            strength: how much of `init` is lost, up to 1; 0.8 unless given, with a mask 1.
            latents: noise to begin with, in place of what the seeds give.
            clip_skip: layers at the end of the text encoder that are left out.
            truncate: leave out what is too long for the text encoder, in place of an error.
            callback: called after each step with a `LatentStep`; its `pictures()` are previews.
            batch_size: pictures that are made at a time.
            output: "pictures" (Pillow), "array" (B, 3, H, W) from -1 to 1, or "latents".
            settings: of the scheduler's `step`: `eta=` of DDIM.

        Raises:
            DataError: a prompt, picture or mask that cannot be used.
            ConfigError, ShapeError: numbers and sizes that make no sense.
            DeviceError: more memory is needed than there is.
        """
        check_output(output)
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        texts = [t for t in checked_texts(prompt, "prompt") for _ in range(check_count(count))]
        walked = self._walked(scheduler)
        check_settings(walked, settings)
        distilled = self.module.unet.config.time_cond_proj_dim is not None
        lcm = isinstance(walked, LCMScheduler)
        steps = (STEPS_LCM if lcm else STEPS) if steps is None else steps
        listed: int | list[float] = list(steps) if isinstance(steps, Sequence) else steps
        if guidance is None:
            guidance = (GUIDANCE_LCM if distilled else 1.0) if lcm else self.guidance
        how = Guidance(guidance, rescale)
        negatives = self._negatives(negative, len(texts), count)
        if distilled and negative is not None:
            raise ConfigError(
                f"{self.card.name} is distilled with guidance inside and knows no negative prompt."
            )
        if init is not None:
            init = opened(init)
        pair = self._pair(size, init)
        strength = self._strength(strength, init, mask)
        begin = _chosen(walked, listed, strength, init is not None)
        seeds = seeds_of(len(texts), seed)
        rows, columns = (n // self.factor for n in pair)
        like = next(self.module.unet.parameters())
        channels = self.module.vae.config.latent_channels
        start = self._given_latents(latents, (len(texts), channels, rows, columns), like)
        if start is not None and init is not None:
            raise ConfigError("latents and init are both given: one is what to begin with.")
        contexts = self._contexts(
            texts,
            negatives,
            how,
            distilled,
            clip_skip,
            truncate,
            size=pair,
            blank=negative is None,
        )
        doubled = contexts[1] is not None
        cost = self._costs(len(texts), pair, len(walked.timesteps) - begin, doubled, batch_size)
        refuse_too_large(f"{self.card.name} at {pair[0]} x {pair[1]}", cost, self.device)
        said = self._said(
            walked,
            pair,
            steps=listed,
            guidance=guidance,
            rescale=rescale,
            clip_skip=clip_skip,
            strength=strength if init is not None else None,
            adapters=self.adapters.said(),
            **settings,
        )
        made: list[Any] = []
        total = (len(walked.timesteps) - begin) * -(-len(texts) // batch_size)
        with progress(total=total, what="sampling", unit="steps") as bar:
            for first in range(0, len(texts), batch_size):
                part = slice(first, first + batch_size)
                _chosen(walked, listed, strength, init is not None)
                generators = generators_of(seeds[part], like.device)
                sample = self._sample(
                    walked,
                    [None if c is None else tuple(x[part] for x in c) for c in contexts],
                    how,
                    generators,
                    begin=begin,
                    strength=strength,
                    start=None if start is None else start[part],
                    picture=None if init is None else picture_array(init, pair),
                    mask=None if mask is None else mask_array(mask, pair),
                    shape=(channels, rows, columns),
                    callback=self._told(callback),
                    bar=bar,
                    **settings,
                )
                each = [
                    {**said, "prompt": text, "negative": self._told_negative(not_this, negative)}
                    | {"seed": one}
                    for text, not_this, one in zip(
                        texts[part], negatives[part], seeds[part], strict=True
                    )
                ]
                made += self._output(sample, output, each)
        return made if output == "pictures" else np.stack(made)

    def _sample(
        self,
        scheduler: Scheduler,
        contexts: Sequence[Condition | None],
        how: Guidance,
        generators: Sequence[Generator],
        *,
        begin: int,
        strength: float,
        start: Tensor | None,
        picture: Any,
        mask: Any,
        shape: tuple[int, int, int],
        callback: Callback | None,
        bar: Progress[Any],
        **settings: Any,
    ) -> Tensor:
        """The latents at the end of one walk. Shape: (B, *shape)."""
        unet, vae = self.module.unet, self.module.vae
        like = next(unet.parameters())
        wanted, against = contexts
        assert wanted is not None
        batch = wanted[0].shape[0]
        wide = unet.config.in_channels != vae.config.latent_channels

        def latents_of(x: Any) -> Tensor:
            values = Tensor(np.repeat(x, batch, axis=0)).to(device=like.device, dtype=vae.dtype)
            return picture_latents(vae, values, generators, scaled).astype(like.dtype)

        # A picture is first made latents, then made noisy; what is pure noise comes first.
        kept = latents_of(picture) if picture is not None and not (wide and strength == 1) else None
        noise = first_noise(shape, generators, like) if start is None else start
        if kept is None or (mask is not None and strength == 1):
            x = noise * scheduler.init_noise_sigma
        else:
            x = scheduler.add_noise(kept, noise, scheduler.timesteps[begin])
        painting = None
        if mask is not None:
            small = Tensor(np.repeat(latent_size(mask, self.factor), batch, axis=0))
            small = small.to(device=like.device, dtype=like.dtype)
            if wide:
                masked = latents_of(picture * (1 - mask))
                painting = Painting(None, small, noise, concat([small, masked], axis=1))
            else:
                painting = Painting(kept, small, noise)
        network = self._network()
        width = unet.config.time_cond_proj_dim

        def ask(values: Tensor, t: float, condition: Condition) -> Tensor:
            context, beside = condition[0], condition[1 + self.additions :]
            more = self._added(condition[1 : 1 + self.additions])
            times = Tensor(np.full(values.shape[0], t, np.float32)).to(device=values.device)
            if beside:
                values = concat([values, *beside], axis=1)
            if width is not None:
                more["timestep_cond"] = guidance_waves(how.scale, width, values)
            said: Tensor = network(values, times, context, **more)
            return said

        def told(condition: Condition | None) -> Condition | None:
            masked = () if painting is None or painting.masked is None else (painting.masked,)
            return None if condition is None else (*condition, *masked)

        condition, other = told(wanted), told(against)
        assert condition is not None

        def predict(values: Tensor, t: float) -> Tensor:
            return guided(ask, values, t, condition, other, how, slicing=self.slicing)

        return walk(
            predict,
            scheduler,
            x,
            generators=generators,
            begin=begin,
            callback=callback,
            bar=bar,
            adjust=None
            if painting is None
            else lambda values, t: painting.mixed(values, scheduler, t),
            **settings,
        )

    # -- settings of a call --------------------------------------------------------------------

    def _negatives(self, negative: Any, total: int, count: int) -> list[str]:
        if negative is None:
            return [""] * total
        texts = checked_texts(negative, "negative")
        if isinstance(negative, str):
            return texts * total
        if len(texts) * count != total:
            raise DataError(
                f"{len(texts)} negative prompts for {total // count} prompts: one for all of them "
                "(a text), or one for each, is wanted.",
                expected=total // count,
                got=len(texts),
            )
        return [t for t in texts for _ in range(count)]

    def _contexts(
        self,
        texts: list[str],
        negatives: list[str],
        how: Guidance,
        distilled: bool,
        skip: int,
        truncate: bool,
        *,
        size: tuple[int, int],
        blank: bool,
    ) -> list[Condition | None]:
        """What the network is conditioned on, and what guidance leads away from.

        Args:
            size: of the pictures.
            blank: no negative prompt was given.
        """
        every = list(dict.fromkeys([*texts, *negatives]))
        each = {
            text: self.prompts.encode([text], skip=skip, truncate=truncate)
            for text in (every if how.scale != 1 and not distilled else dict.fromkeys(texts))
        }
        like = next(self.module.unet.parameters())
        with inference_mode():
            wanted = concat([each[t] for t in texts], axis=0).astype(like.dtype)
            if how.scale == 1 or distilled:
                return [(wanted,), None]
            return [(wanted,), (concat([each[t] for t in negatives], axis=0).astype(like.dtype),)]

    additions = 0  # tensors of a condition that the network takes beside the tokens

    def _added(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        """Arguments of the network out of these tensors."""
        return {}

    def _told_negative(self, text: str, given: Any) -> str | None:
        """What a picture's file says of the negative prompt."""
        return text

    def _pair(self, size: Any, init: Any) -> tuple[int, int]:
        """Height and width: as given, as the picture's, as the training's."""
        if size is None and init is not None:
            multiple = self._multiple()
            size = tuple(n // multiple * multiple for n in (init.height, init.width))
            if not all(size):
                raise DataError(
                    f"init has {init.height} x {init.width} pixels; at least {multiple} in each "
                    "direction are wanted, or a size."
                )
        rows, columns = self.module.unet.config.sample_size
        return self._size(size, (rows * self.factor, columns * self.factor))

    def _strength(self, strength: float | None, init: Any, mask: Any) -> float:
        if mask is not None and init is None:
            raise ConfigError("a mask says what of a picture to keep: init= is the picture.")
        wide = self.module.unet.config.in_channels != self.module.vae.config.latent_channels
        if wide and mask is None:
            raise ConfigError(
                f"{self.card.name} was trained to paint into pictures: it needs init= and mask=."
            )
        if strength is not None and init is None:
            raise ConfigError("strength is of a picture to begin with: init= is the picture.")
        if strength is None:
            return 1.0 if init is None or mask is not None else self.strength
        return strength

    def cost(
        self,
        count: int = 1,
        *,
        size: int | tuple[int, int] | None = None,
        steps: int = STEPS,
        guidance: float | None = None,
        batch_size: int = 1,
    ) -> Cost:
        """What a call with these settings will need: operations, time and memory."""
        guidance = self.guidance if guidance is None else guidance
        return self._costs(count, self._pair(size, None), steps, guidance != 1, batch_size)

    def _costs(
        self, total: int, size: tuple[int, int], calls: int, doubled: bool, batch_size: int
    ) -> Cost:
        unet = self.module.unet
        rows, columns = (n // self.factor for n in size)
        tokens = self.prompts.length
        times = 2 if doubled else 1
        once = unet_operations(unet, rows, columns, tokens)
        batch = 1 if self.slicing else times * min(batch_size, total)
        memory = unet_memory(unet, rows, columns, batch)
        return self._cost(once * times * calls * total, memory, total, rows, columns)

    # -- the model -----------------------------------------------------------------------------

    def use_tokenizer(self, folder: str | Path | None = None) -> Self:
        """Take the tokenizer of a folder, where the model came without: a single file, say.

        Args:
            folder: CLIP's own is fetched from the hub unless given.
        """
        encoder = self.prompts.encoder
        if folder is None:
            found = _published(encoder, fetch=True)
        else:
            found = tokenizer_of(Path(folder), encoder.config.max_position_embeddings)
        if found is None:
            raise HubError(f"{folder} holds no tokenizer of CLIP", folder=str(folder))
        self.prompts.tokenizer, self.prompts.pad = found
        files = self.prompts.tokenizer.files
        self._beside.update({f"{FOLDER}/{name}": content for name, content in files.items()})
        return self

    def load_lora(self, path: str | Path, *, name: str | None = None, scale: float = 1.0) -> Self:
        """Put a LoRA adapter into effect: a file, in the names of diffusers, peft or kohya.

        Args:
            path: the file, a folder that holds it, or a repository on the hub.
            name: to change its scale or remove it; the file's unless given.
            scale: how strongly; 0 is not at all.

        Raises:
            WeightsError: tensors that fit no layer.
        """
        self.adapters.load(path, name=name, scale=scale)
        return self

    def set_lora(self, **scales: float) -> Self:
        """Change the scales of adapters by their names."""
        self.adapters.scale(scales)
        return self

    def unload_lora(self, *names: str) -> Self:
        """Remove adapters, or all of them; the weights are what they were, bit for bit."""
        self.adapters.unload(names)
        return self

    def merge_lora(self) -> Self:
        """Make what the adapters change a part of the weights for good."""
        self.adapters.merge()
        return self

    def _index(self) -> dict[str, Any]:
        held: Mapping[str, bytes] = self._beside
        tokenizer = any(path.startswith(f"{FOLDER}/") for path in held)
        return {FOLDER: ["transformers", "CLIPTokenizer"] if tokenizer else [None, None]}


def _chosen(scheduler: Scheduler, steps: int | list[float], strength: float, picture: bool) -> int:
    """Choose the steps of a walk; which of them is the first, where it begins with a picture."""
    if isinstance(steps, list):
        if "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
            raise ConfigError(
                f"{type(scheduler).__name__} takes a number of steps, not timesteps one by one.\n"
                'Schedulers that do: "ddpm", "dpm++", "euler", "heun", "lcm"'
            )
        scheduler.set_timesteps(timesteps=steps)
        return begin_of(scheduler, len(steps), strength) if picture else 0
    if not picture:
        scheduler.set_timesteps(steps)
        return 0
    if isinstance(scheduler, LCMScheduler):  # takes all its steps of what strength leaves
        begin_of(scheduler, scheduler.config.original_inference_steps, strength)
        scheduler.set_timesteps(steps, strength=strength)
        return 0
    scheduler.set_timesteps(steps)
    return begin_of(scheduler, steps, strength)


def _published(encoder: Any, *, fetch: bool) -> tuple[ClipTokenizer, int] | None:
    """CLIP's own tokenizer and the token to pad with: version 2 has another."""
    found = published_tokenizer(encoder.config.max_position_embeddings, fetch=fetch)
    if found is None:
        return None
    return found, (0 if encoder.config.hidden_act == "gelu" else found.end)
