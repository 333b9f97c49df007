"""Pictures of what a text says, by the pipelines of Stable Diffusion XL.

Two encoders read the text, and the network is told how large the picture is, and how it was cut.
Source: Podell et al. 2023, "SDXL: Improving latent diffusion models for high-resolution image
synthesis".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...core.errors import ConfigError, HubError
from ...core.ops.shape import concat
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.loading import Loaded
from ..pipelines.latent import Condition, Guidance
from ..pipelines.prompts import FOLDER, Prompts, tokenizer_of
from ..pipelines.prompts_xl import DoublePrompts, Told
from .latent import files_beside
from .text_to_image import TextToImage, _published

FOLDER_2 = "tokenizer_2"
_ZEROS = "force_zeros_for_empty_prompt"
_NUMBERS = 6  # rows and columns of the original, of the cut, and of the picture


class TextToImageXL(TextToImage):
    """Makes pictures of what a text says: `model("a cat on a roof", seed=0)[0]`.

    Attributes:
        zeros: without a negative prompt, guidance leads away from zeros, not from an empty text.
        original: rows and columns of the photo that the picture is to look cut from; those of the
            picture unless set. Small ones make pictures look scaled up.
        corner: rows and columns that look cut off at the top and the left.
    """

    guidance = 5.0
    strength = 0.3
    additions = 2
    prompts: Any  # DoublePrompts

    def __init__(self, *args: Any, zeros: bool = True, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.zeros = zeros
        self.original: tuple[int, int] | None = None
        self.corner = (0, 0)

    @classmethod
    def _arguments(cls, loaded: Loaded) -> dict[str, Any]:
        zeros = loaded.published.get(_ZEROS, True)
        if type(zeros) is not bool:
            raise ConfigError(f"{_ZEROS}={zeros!r} is neither true nor false", got=zeros)
        if loaded.published.get("requires_aesthetics_score"):
            raise ConfigError(
                f"{loaded.card.name} refines pictures by a score of their looks, which is not "
                "supported; the base model is."
            )
        width = loaded.module.text_encoder_2.config.projection_dim
        if width is None:
            raise ConfigError(
                f"{loaded.card.name}: text_encoder_2 has no vector of the whole text: it must be a "
                "CLIPTextModelWithProjection."
            )
        prompts = []
        for network, name in (("text_encoder", FOLDER), ("text_encoder_2", FOLDER_2)):
            encoder = getattr(loaded.module, network)
            folder = None if loaded.folder is None else loaded.folder / name
            found = tokenizer_of(folder, encoder.config.max_position_embeddings)
            prompts.append(Prompts(encoder, *(found or ())))
        return {
            **super(TextToImage, cls)._arguments(loaded),
            "prompts": DoublePrompts(*prompts),
            "beside": files_beside(loaded.folder, (FOLDER, FOLDER_2)),
            "zeros": zeros,
        }

    # -- conditions ----------------------------------------------------------------------------

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
        doubled = how.scale != 1 and not distilled
        zeros = blank and self.zeros
        each = self._encoded(texts, skip, truncate)
        like = next(self.module.unet.parameters())
        numbers = Tensor(np.tile(self._numbers(size), (len(texts), 1)))
        numbers = numbers.to(device=like.device)

        def together(found: Sequence[Told]) -> tuple[Tensor, ...]:
            parts = (concat([getattr(one, name) for one in found], axis=0) for name in Told._fields)
            return tuple(part.astype(like.dtype) for part in parts)

        with inference_mode():
            wanted = together([each[t] for t in texts])
            if not doubled:
                return [(*wanted, numbers), None]
            if zeros:
                against = tuple(part * 0 for part in wanted)
            else:
                # Layers are left out of what is wanted only, as diffusers has it.
                other = each if skip == 0 else {}
                other = self._encoded([t for t in negatives if t not in other], 0, truncate) | other
                against = together([other[t] for t in negatives])
            return [(*wanted, numbers), (*against, numbers)]

    def _encoded(self, texts: Sequence[str], skip: int, truncate: bool) -> dict[str, Told]:
        one: Any = self.prompts.encode
        return {t: one([t], skip=skip, truncate=truncate) for t in dict.fromkeys(texts)}

    def _numbers(self, size: tuple[int, int]) -> np.ndarray[Any, Any]:
        """What the network is told of the picture's size. Shape: (6,)"""
        values = (*(self.original or size), *self.corner, *size)
        if len(values) != _NUMBERS or not all(type(n) is int and 0 <= n <= 65_536 for n in values):
            raise ConfigError(
                f"original={self.original!r} and corner={self.corner!r}: (rows, columns) each, in "
                "pixels, are wanted."
            )
        return np.asarray(values, np.float32)

    def _added(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        whole, numbers = tensors
        return {"added_cond_kwargs": {"text_embeds": whole, "time_ids": numbers}}

    def _told_negative(self, text: str, given: Any) -> str | None:
        return None if given is None and self.zeros else text

    # -- the model -----------------------------------------------------------------------------

    def use_tokenizer(self, folder: str | Path | None = None) -> Self:
        """Take the tokenizer of a folder for both encoders; see `TextToImage.use_tokenizer`."""
        length = self.prompts.length
        if folder is None:
            found = _published(self.prompts.first.encoder, fetch=True)
        else:
            found = tokenizer_of(Path(folder), length)
        if found is None:
            raise HubError(f"{folder} holds no tokenizer of CLIP", folder=str(folder))
        tokenizer, pad = found
        self.prompts.first.tokenizer, self.prompts.first.pad = tokenizer, pad
        self.prompts.second.tokenizer, self.prompts.second.pad = tokenizer, 0
        for name in (FOLDER, FOLDER_2):
            self._beside.update({f"{name}/{k}": v for k, v in tokenizer.files.items()})
        return self

    def _index(self) -> dict[str, Any]:
        said: dict[str, Any] = {_ZEROS: self.zeros}
        for name in (FOLDER, FOLDER_2):
            there = any(path.startswith(f"{name}/") for path in self._beside)
            said[name] = ["transformers", "CLIPTokenizer"] if there else [None, None]
        said["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        return said
