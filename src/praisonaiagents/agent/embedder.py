"""An embedder by the name of a provider's model, such as `openai:text-embedding-3-small` or `ollama:nomic-embed-text`.

The address and the key come from the environment, as the LLM library reads them (`OPENAI_API_KEY`, `OPENAI_BASE_URL`,
`OLLAMA_BASE_URL`, ...). Nothing is imported or connected before the first text, and no model is ever downloaded here. What a
reader would get wrong: it is called in a worker thread and works on the background loop, so it may be used from any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from praisonaiagents.errors import ConfigError, MissingDependency, ModelError
from praisonaiagents.memory.config import MemoryConfig

TIMEOUT_S = 30.0


def with_embedder(config: MemoryConfig) -> MemoryConfig:
    """The configuration with a function in place of the name of an embedder. Raises `ConfigError` for what is no name."""
    if not isinstance(config.embedder, str):
        return config
    return msgspec.structs.replace(config, embedder=ProviderEmbedder(config.embedder))


class ProviderEmbedder:
    """Texts to vectors by a provider's model. model: `provider:name`; without a provider, OpenAI's.

    Raises `ModelError` when the provider does not answer, `MissingDependency`.
    """

    def __init__(self, model: str, kind: Literal["query", "document"] = "document") -> None:
        provider, colon, name = model.strip().partition(":")
        if not (name if colon else provider):
            raise ConfigError("an embedder's name is 'provider:model', such as 'openai:text-embedding-3-small'")
        self.model = model.strip() if colon else f"openai:{provider}"
        self._kind = kind

    @property
    def for_questions(self) -> ProviderEmbedder:
        """The same for what is looked for: some providers tell questions from what answers them."""
        return ProviderEmbedder(self.model, "query")

    def __call__(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        from praisonaiagents.agent import background

        return background.run(self._embedded(list(texts)))

    def __repr__(self) -> str:
        return f"ProviderEmbedder({self.model!r})"

    async def _embedded(self, texts: list[str]) -> Sequence[Sequence[float]]:
        import asyncio

        from pydantic_ai.embeddings import infer_embedding_model
        from pydantic_ai.exceptions import UserError
        from pydantic_ai.providers import infer_provider

        opened: list[Any] = []

        def provider(name: str) -> Any:
            opened.append(infer_provider(name))
            return opened[-1]

        try:
            model = infer_embedding_model(self.model, provider_factory=provider)
        except ImportError as exc:
            raise MissingDependency(
                f"the embedder {self.model!r}", self.model.partition(":")[0], "pydantic-ai-slim"
            ) from exc
        except (UserError, TypeError, ValueError) as exc:
            raise ConfigError(f"the embedder {self.model!r} cannot be used: {exc}") from exc
        try:
            async with opened[0], asyncio.timeout(TIMEOUT_S):
                result = await model.embed(texts, input_type=self._kind)
        except Exception as exc:  # their texts may quote a key
            raise ModelError(f"the embedder {self.model!r} did not answer: {type(exc).__name__}") from exc
        return result.embeddings
