from encoder_contract import EncoderContract
from tune_cache.encoders.muq import NANO
class TestNano(EncoderContract):
    factory=NANO; load_kwargs={"device":"cpu"}; atol=1e-5
    def n_frames(self,n): return -(-(n//240)//4)
