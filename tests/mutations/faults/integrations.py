"""Faults in dropattack/integrations."""

from tests.mutations.fault import Fault

FAULTS = (
    Fault("integrations/lightning.py", "A resumed Lightning training starts with fresh random numbers.",
          "self.regularizer.load_state_dict(states[rank])",
          "pass", "tests/integrations/test_lightning.py", "resum"),
    Fault("integrations/hf.py", "Hugging Face's accumulated gradient is a sum instead of a mean.",
          "backward=lambda loss: self.accelerator.backward(loss / (divisor * whole)),",
          "backward=lambda loss: self.accelerator.backward(loss),", "tests/integrations/test_hf.py", "dropattack"),
    Fault("integrations/lightning.py", "With manual optimization every pass logs.",
          "            self._held.passes += 1\n            return forward()",
          "            return forward()", "tests/integrations/test_lightning_steps.py"),
    Fault("integrations/lightning.py", "A module's own checkpoint hook hides the regularizer's state.",
          "if owner is cls or not issubclass(owner, RegularizerMixin):",
          "if False:", "tests/integrations/test_lightning.py", "hooks_of_a_module"),
    Fault("integrations/lightning.py", "A new training of old weights has the counters of the old one.",
          "if not states or not self.trainer.global_step:", "if not states:",
          "tests/integrations/test_lightning.py", "new_training"),
    Fault("integrations/lightning.py", "A checkpoint before the first resumed step loses the state.",
          "if module._held.restored is not None:", "if False:",
          "tests/integrations/test_lightning.py", "before_the_first"),
    Fault("integrations/hf.py", "A process that is new to a resumed training starts its regularizer at step 0.",
          "elif os.path.isfile(path := self._state_file(folder, 0)):", "elif False:",
          "tests/integrations/test_hf.py", "one_objective"),
)  # fmt: skip
